// SPDX-License-Identifier: GPL-2.0
/*
 * A provider of persistent memory for tests: an nvdimm bus on memory that the
 * command line reserves (memmap=128M$512M). Tests can make its media fail, clear
 * the poison or refuse to, and count, delay and fail its flushes.
 *
 * An OFFSET is in bytes, K or M from the start of the range; other sizes are in
 * bytes. Writable parameters are in /sys/module/pmem_provider/parameters.
 */

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/kprobes.h>
#include <linux/libnvdimm.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/nd.h>
#include <linux/ndctl.h>
#include <linux/objtool.h>
#include <linux/seq_buf.h>
#include <linux/set_memory.h>
#include <linux/suspend.h>
#include <linux/workqueue.h>

#define MAX_REGIONS 4

static struct device *parent;
static struct nvdimm_bus *bus;
static struct nd_region *regions[MAX_REGIONS];
static struct workqueue_struct *flush_queue;
static char *memory;

static ullong start = 512 << 20, size = 64 << 20;
module_param(start, ullong, 0444);
module_param(size, ullong, 0444);

static uint nr_regions = 1;
module_param(nr_regions, uint, 0444);
MODULE_PARM_DESC(nr_regions, "number of regions that divide the range");

static bool pages = true, dimm = true, commands = true, scrub, unarmed, keep;
module_param(pages, bool, 0444);
MODULE_PARM_DESC(pages, "struct pages for the memory of raw namespaces");
module_param(dimm, bool, 0444);
MODULE_PARM_DESC(dimm, "the regions have flush hints: FUA, no MAP_SYNC; 0: like e820");

static uint async = UINT_MAX;
module_param(async, uint, 0444);
MODULE_PARM_DESC(async, "a bit for each region: it has these flush hints");

module_param(commands, bool, 0444);
MODULE_PARM_DESC(commands, "the bus has a clear-error command");
module_param(scrub, bool, 0444);
MODULE_PARM_DESC(scrub, "the bus has an ARS status command, like firmware that keeps an error log");
module_param(unarmed, bool, 0444);
MODULE_PARM_DESC(unarmed, "the DIMM is not armed: the region is read-only");
module_param(keep, bool, 0444);
MODULE_PARM_DESC(keep, "keep the contents of the memory; otherwise zero it");

/* ---- errors ---- */

/* The poison in the media, independent of the badrange list: by offset. */
static struct badrange media = {
	.list = LIST_HEAD_INIT(media.list),
	.lock = __SPIN_LOCK_UNLOCKED(media.lock),
};

static uint clear_unit = 512, clear_limit = UINT_MAX;
module_param(clear_unit, uint, 0644);
MODULE_PARM_DESC(clear_unit, "smallest range that can be cleared; 0: none");
module_param(clear_limit, uint, 0644);
MODULE_PARM_DESC(clear_limit, "maximum bytes that one command clears; 0: refused");

static ullong stubborn = ULLONG_MAX;
module_param(stubborn, ullong, 0644);
MODULE_PARM_DESC(stubborn, "OFFSET of a byte whose poison cannot be cleared");

static bool clear_wipes;
module_param(clear_wipes, bool, 0644);
MODULE_PARM_DESC(clear_wipes, "whether a clear-error command overwrites what it clears, which a platform may do");

static uint clear_delay;
static bool clearing;
module_param(clear_delay, uint, 0644);
MODULE_PARM_DESC(clear_delay, "duration of a clear-error command in milliseconds, after it has cleared");
module_param(clearing, bool, 0444);
MODULE_PARM_DESC(clearing, "whether a clear-error command with a delay is under way");

static ullong cleared, flushed, seen;
module_param(cleared, ullong, 0444);
MODULE_PARM_DESC(cleared, "the first 8 bytes of the memory at the last clear-error command");
module_param(flushed, ullong, 0444);
MODULE_PARM_DESC(flushed, "what the last flush before that command has seen");

static ullong poison_log = ULLONG_MAX;
module_param(poison_log, ullong, 0644);
MODULE_PARM_DESC(poison_log, "OFFSET of a byte for each sector of the range, which is 1 if it has poison; poison destroys data");

/* In the memory itself, so that it survives a power failure, as the platform's does. */
static void log_poison(u64 offset, u64 length, bool poison)
{
	static const u8 destroyed[SECTOR_SIZE] = { [0 ... SECTOR_SIZE - 1] = 0xff };
	u64 first = offset / SECTOR_SIZE, last = DIV_ROUND_UP(offset + length, SECTOR_SIZE);

	if (poison_log >= size || last > size - poison_log)
		return;
	for (u64 sector = first; sector < last; sector++)
		memcpy_flushcache(memory + poison_log + sector, &(u8){ poison }, 1);
	wmb();
	if (!poison)
		return;
	for (u64 sector = first; sector < last; sector++)
		memcpy_flushcache(memory + sector * SECTOR_SIZE, destroyed, SECTOR_SIZE);
	wmb();
}

/* For so many milliseconds; a shorter time also ends a sleep that has begun. */
static void sleep_for(const uint *duration)
{
	uint delay, waited = 0;

	while ((delay = READ_ONCE(*duration)) > waited) {
		uint step = min(delay - waited, 100U);

		msleep(step);
		waited += step;
	}
}

static int provider_ctl(struct nvdimm_bus_descriptor *desc,
			struct nvdimm *nvdimm, uint cmd, void *buf, uint len,
			int *cmd_rc)
{
	struct nd_cmd_ars_cap *cap = buf;
	struct nd_cmd_clear_error *clear = buf;

	*cmd_rc = 0;
	if (nvdimm)
		return -ENOTTY;
	switch (cmd) {
	case ND_CMD_ARS_CAP:
		cap->clear_err_unit = clear_unit;
		return 0;
	case ND_CMD_CLEAR_ERROR:
		if (!clear_limit || start + stubborn - clear->address < clear->length ||
		    clear->address < start || clear->address - start > size - sizeof(cleared)) {
			*cmd_rc = -EIO;
			return 0;
		}
		clear->cleared = min_t(u64, clear->length, clear_limit);
		memcpy(&cleared, memory + clear->address - start, sizeof(cleared));
		flushed = seen;
		if (clear_wipes)
			memset(memory + clear->address - start, 0xdd, clear->cleared);
		badrange_forget(&media, clear->address - start, clear->cleared);
		log_poison(clear->address - start, clear->cleared, false);
		if (clear_delay) {
			WRITE_ONCE(clearing, true);
			sleep_for(&clear_delay);
			WRITE_ONCE(clearing, false);
		}
		return 0;
	default:
		return -ENOTTY;
	}
}

/* "OFFSET+LENGTH,…" */
static int bad_set(const char *val, const struct kernel_param *kp)
{
	int rc = 0;

	while (*val && *val != '\n') {
		char *end;
		u64 offset = memparse(val, &end), length = 0;

		if (*end == '+')
			length = memparse(end + 1, &end);
		if (!length)
			return -EINVAL;
		if (badrange_add(&media, offset, length))
			return -ENOMEM;
		if (memory)
			log_poison(offset, length, true);
		if (bus && nvdimm_bus_add_badrange(bus, start + offset, length))
			rc = -ENOMEM;
		val = *end == ',' ? end + 1 : end;
	}
	for (uint i = 0; bus && i < nr_regions; i++)
		nvdimm_region_notify(regions[i], NVDIMM_REVALIDATE_POISON);
	return rc;
}

static int bad_get(char *buf, const struct kernel_param *kp)
{
	struct badrange_entry *entry;
	struct seq_buf s;

	seq_buf_init(&s, buf, PAGE_SIZE - 1);
	spin_lock(&media.lock);
	list_for_each_entry(entry, &media.list, list)
		seq_buf_printf(&s, "%llu+%llu\n", entry->start, entry->length);
	spin_unlock(&media.lock);
	return seq_buf_used(&s);
}

static const struct kernel_param_ops bad_ops = { .set = bad_set, .get = bad_get };
module_param_cb(bad, &bad_ops, NULL, 0644);
MODULE_PARM_DESC(bad, "bad ranges; writing adds to them and notifies the driver");

/*
 * Does what memory failure handling does; an empty string undoes all. The memory
 * must have struct pages, and a bound driver.
 */
static int unmap_set(const char *val, const struct kernel_param *kp)
{
	static unsigned long pfns[64];
	static unsigned int count;
	int rc = 0;

	if (!*val || *val == '\n') {
		while (count && !rc)
			rc = clear_mce_nospec(pfns[--count]);
		return rc;
	}
	if (count == ARRAY_SIZE(pfns))
		return -ENOSPC;
	pfns[count] = PHYS_PFN(start + memparse(val, NULL));
	rc = set_mce_nospec(pfns[count]);
	count += !rc;
	return rc;
}

static const struct kernel_param_ops unmap_ops = { .set = unmap_set };
module_param_cb(unmap, &unmap_ops, NULL, 0200);
MODULE_PARM_DESC(unmap, "unmap the page at OFFSET from the direct map");

/* ---- flushes ---- */

/* One flush with a delay is under way at a time. */
static DEFINE_MUTEX(flush_mutex);
static DEFINE_SPINLOCK(flush_lock);

static uint flushes, flush_delay, flush_fails_every;
static bool flush_async, flush_fails, flush_out_of_memory;
static ullong watch, tally = ULLONG_MAX, medium = ULLONG_MAX;
module_param(flushes, uint, 0644);
MODULE_PARM_DESC(flushes, "number of flushes");
module_param(flush_delay, uint, 0644);
MODULE_PARM_DESC(flush_delay, "duration of a flush in milliseconds");
module_param(flush_async, bool, 0644);
MODULE_PARM_DESC(flush_async, "complete FUA bios asynchronously");
module_param(flush_fails, bool, 0644);
module_param(flush_out_of_memory, bool, 0644);
MODULE_PARM_DESC(flush_out_of_memory, "fail a flush with ENOMEM like an allocation of a task that the OOM killer has chosen");
module_param(flush_fails_every, uint, 0644);
MODULE_PARM_DESC(flush_fails_every, "fail each flush with a number that is a multiple of this");
module_param(watch, ullong, 0644);
MODULE_PARM_DESC(watch, "OFFSET of 8 bytes whose value is recorded by each flush");
module_param(seen, ullong, 0444);
MODULE_PARM_DESC(seen, "that value at the last flush");
module_param(tally, ullong, 0644);
MODULE_PARM_DESC(tally, "OFFSET of 8 bytes that store the number of flushes");
module_param(medium, ullong, 0644);
MODULE_PARM_DESC(medium, "OFFSET of 64K that store the contents of the 64K before them at the start of the last good flush");

static uint submitting, bios;
static bool flushing;
static int flushing_asleep = -1;
module_param(submitting, uint, 0644);
MODULE_PARM_DESC(submitting, "number of flushes in submit_bio() that allow I/O to reclaim memory");
module_param(flushing, bool, 0444);
MODULE_PARM_DESC(flushing, "whether a flush with a delay is under way");
module_param(flushing_asleep, int, 0444);
MODULE_PARM_DESC(flushing_asleep, "the same when the system was to be suspended, which is refused with EBUSY; -1: it was not");
module_param(bios, uint, 0644);
MODULE_PARM_DESC(bios, "number of bios that were passed with a flush");

struct flush_work {
	struct work_struct work;
	struct bio *bio;
};

#define MEDIUM_SIZE SZ_64K

static u8 staged[MEDIUM_SIZE];

static bool has_medium(void)
{
	return medium <= size - MEDIUM_SIZE && medium >= MEDIUM_SIZE;
}

static void begin_flush(void)
{
	if (has_medium())
		memcpy(staged, memory + medium - MEDIUM_SIZE, MEDIUM_SIZE);
}

static int end_flush(void)
{
	bool fails;

	/* The value that any CPU stored before the flush. */
	mb();
	if (watch <= size - sizeof(seen))
		memcpy(&seen, memory + watch, sizeof(seen));
	flushes++;
	if (tally <= size - sizeof(u64))
		memcpy_flushcache(memory + tally, &(u64){ flushes }, sizeof(u64));
	fails = flush_fails || (flush_fails_every && flushes % flush_fails_every == 0);
	if (has_medium() && !fails)
		memcpy_flushcache(memory + medium, staged, MEDIUM_SIZE);
	return fails ? -EIO : 0;
}

static int flush_slowly(void)
{
	guard(mutex)(&flush_mutex);
	scoped_guard(spinlock, &flush_lock)
		begin_flush();
	WRITE_ONCE(flushing, true);
	sleep_for(&flush_delay);
	WRITE_ONCE(flushing, false);
	guard(spinlock)(&flush_lock);
	return end_flush();
}

static int flush_now(void)
{
	if (current->bio_list && !(current->flags & PF_MEMALLOC_NOIO))
		submitting++;
	/* The OOM killer chooses no kernel thread. */
	if (flush_out_of_memory && !(current->flags & (PF_MEMALLOC | PF_KTHREAD)))
		return -ENOMEM;
	if (READ_ONCE(flush_delay))
		return flush_slowly();
	/* nd_btt flushes with a spinlock held. */
	guard(spinlock)(&flush_lock);
	begin_flush();
	return end_flush();
}

static void flush_later(struct work_struct *work)
{
	struct flush_work *flush = container_of(work, struct flush_work, work);

	if (flush_now())
		flush->bio->bi_status = BLK_STS_IOERR;
	bio_endio(flush->bio);
	kfree(flush);
}

static int provider_flush(struct nd_region *region, struct bio *bio)
{
	struct flush_work *flush;

	if (!bio || !flush_async)
		return flush_now();
	flush = kmalloc_obj(*flush, GFP_NOIO);
	if (!flush)
		return -ENOMEM;
	bios++;
	INIT_WORK(&flush->work, flush_later);
	flush->bio = bio;
	queue_work(flush_queue, &flush->work);
	return NVDIMM_FLUSH_ASYNC;
}

/*
 * What virtio_pmem of 7.2 does when it is suspended: waits for the bios that it has. Then
 * there may be bios for a second, and the system stays awake.
 */
static int sleep_event(struct notifier_block *nb, unsigned long event, void *data)
{
	if (event != PM_SUSPEND_PREPARE && event != PM_HIBERNATION_PREPARE)
		return NOTIFY_DONE;
	drain_workqueue(flush_queue);
	flushing_asleep = READ_ONCE(flushing);
	msleep(2000);
	return notifier_from_errno(-EBUSY);
}

/* After those of the drivers. */
static struct notifier_block sleep_block = {
	.notifier_call = sleep_event,
	.priority = -1,
};

/* ---- obstacles for a probe ---- */

/* Claims the page at OFFSET in iomem; an empty string releases it. */
static int claim_set(const char *val, const struct kernel_param *kp)
{
	static u64 claimed;

	if (claimed)
		release_mem_region(claimed, PAGE_SIZE);
	claimed = 0;
	if (!*val || *val == '\n')
		return 0;
	claimed = start + memparse(val, NULL);
	if (request_mem_region(claimed, PAGE_SIZE, KBUILD_MODNAME))
		return 0;
	claimed = 0;
	return -EBUSY;
}

static const struct kernel_param_ops claim_ops = { .set = claim_set };
module_param_cb(claim, &claim_ops, NULL, 0200);
MODULE_PARM_DESC(claim, "claims the page at OFFSET; an empty string releases it");

/*
 * The number of probes to fail after the next unbind: claims the first page of
 * the range as soon as the driver has released it, until they have failed.
 */
static uint hinder;
module_param(hinder, uint, 0644);
MODULE_PARM_DESC(hinder, "number of probes to fail after the next unbind");

static int hinder_event(struct notifier_block *nb, unsigned long event,
			void *data)
{
	static bool claimed;

	if (event == BUS_NOTIFY_UNBOUND_DRIVER && hinder && !claimed) {
		claimed = request_mem_region(start, PAGE_SIZE, KBUILD_MODNAME);
	} else if (event == BUS_NOTIFY_DRIVER_NOT_BOUND && claimed &&
		   !--hinder) {
		release_mem_region(start, PAGE_SIZE);
		claimed = false;
	}
	return NOTIFY_DONE;
}

static struct notifier_block hinder_block = { .notifier_call = hinder_event };

static void decoy_submit(struct bio *bio)
{
	bio_io_error(bio);
}

static const struct block_device_operations decoy_fops = {
	.owner = THIS_MODULE,
	.submit_bio = decoy_submit,
};

static int decoy_set(const char *val, const struct kernel_param *kp)
{
	static struct gendisk *decoy;
	int rc = 0;

	if (decoy) {
		del_gendisk(decoy);
		put_disk(decoy);
		decoy = NULL;
	}
	if (!*val || *val == '\n')
		return 0;
	decoy = blk_alloc_disk(NULL, NUMA_NO_NODE);
	if (!IS_ERR(decoy)) {
		decoy->fops = &decoy_fops;
		snprintf(decoy->disk_name, DISK_NAME_LEN, "%.*s",
			 (int)strcspn(val, "\n"), val);
		rc = add_disk(decoy);
		if (!rc)
			return 0;
		put_disk(decoy);
	}
	decoy = NULL;
	return rc ?: -ENOMEM;
}

static const struct kernel_param_ops decoy_ops = { .set = decoy_set };
module_param_cb(decoy, &decoy_ops, NULL, 0200);
MODULE_PARM_DESC(decoy, "add another disk with this name; an empty string removes it");

/* ---- kernel functions that fail ---- */

#ifdef CONFIG_X86_64
/* As in arch/x86/lib/error-inject.c, which modules can't use. */
asmlinkage void provider_return(void);

asm(".text\n"
    ".type provider_return, @function\n"
    "provider_return:\n"
    ANNOTATE_NOENDBR "\n"
    ASM_RET
    ".size provider_return, .-provider_return\n");
#endif

static long fail_value;
static u64 fail_at;
static uint fail_calls;

/* libnvdimm has a mapping of its own; on x86-64 it is no part of the direct map. */
static bool is_address_of(const void *addr, u64 phys)
{
	if (is_vmalloc_addr(addr))
		return PFN_PHYS(vmalloc_to_pfn(addr)) + offset_in_page(addr) == phys;
	return addr == __va(phys);
}

static int fail_call(struct kprobe *probe, struct pt_regs *regs)
{
	/* The kernel copies its own pages by the same functions. */
	if (fail_at != U64_MAX &&
	    !is_address_of((void *)regs_get_kernel_argument(regs, 1), fail_at))
		return 0;
	fail_calls++;
	regs_set_return_value(regs, fail_value);
#ifdef CONFIG_X86_64
	instruction_pointer_set(regs, (ulong)provider_return);
#else
	instruction_pointer_set(regs, procedure_link_pointer(regs));
#endif
	return 1;
}

/* A probe that has one is not optimised to a jump, which could not return. */
static void fail_post(struct kprobe *probe, struct pt_regs *regs, ulong flags)
{
}

static int fail_set(const char *val, const struct kernel_param *kp)
{
	static char symbol[64];
	static struct kprobe probe;
	int rc;

	if (probe.symbol_name)
		unregister_kprobe(&probe);
	probe.symbol_name = NULL;
	if (!*val || *val == '\n')
		return 0;
	fail_calls = 0;
	fail_at = U64_MAX;
	if (sscanf(val, "%63s %ld %llu", symbol, &fail_value, &fail_at) < 2)
		return -EINVAL;
	probe = (struct kprobe){
		.symbol_name = symbol,
		.pre_handler = fail_call,
		.post_handler = fail_post,
	};
	rc = register_kprobe(&probe);
	if (rc)
		probe.symbol_name = NULL;
	return rc;
}

static int fail_get(char *buf, const struct kernel_param *kp)
{
	return sysfs_emit(buf, "%u\n", fail_calls);
}

static const struct kernel_param_ops fail_ops = {
	.set = fail_set,
	.get = fail_get,
};
module_param_cb(fail, &fail_ops, NULL, 0644);
MODULE_PARM_DESC(fail, "\"FUNCTION VALUE [ADDRESS]\": the kernel's function only returns this (if its second argument is mapped to this physical address); an empty string ends it. Reads as the number of calls");

/* ---- bus and regions ---- */

static int add_regions(void)
{
	u64 len = size / nr_regions;
	struct nvdimm *nvdimm = NULL;

	/* Without a label area: one namespace is the whole region. */
	if (dimm)
		nvdimm = nvdimm_create(bus, NULL, NULL,
				       unarmed << NDD_UNARMED, 0, 0, NULL);
	if (nvdimm_bus_check_dimm_count(bus, dimm))
		return -ENXIO;
	for (uint i = 0; i < nr_regions; i++) {
		struct resource res = DEFINE_RES_MEM(start + i * len, len);
		struct nd_mapping_desc mapping = {
			.nvdimm = nvdimm,
			.start = i * len,
			.size = len,
		};
		struct nd_region_desc desc = {
			.res = &res,
			.mapping = &mapping,
			.num_mappings = dimm,
			.numa_node = NUMA_NO_NODE,
			.target_node = NUMA_NO_NODE,
			.flags = pages << ND_REGION_PAGEMAP | (dimm && async & BIT(i)) << ND_REGION_ASYNC,
			.flush = provider_flush,
		};

		regions[i] = nvdimm_pmem_region_create(bus, &desc);
		if (!regions[i])
			return -ENXIO;
	}
	return 0;
}

static void provider_exit(void)
{
	unregister_pm_notifier(&sleep_block);
	bus_unregister_notifier(to_nvdimm_bus_dev(bus)->bus, &hinder_block);
	nvdimm_bus_unregister(bus);
	destroy_workqueue(flush_queue);
	decoy_set("", NULL);
	claim_set("", NULL);
	fail_set("", NULL);
	root_device_unregister(parent);
	memunmap(memory);
	badrange_forget(&media, 0, UINT_MAX);
}

static int provider_init(void)
{
	/* The devices do not pin the module, so rmmod can remove the memory. */
	static struct nvdimm_bus_descriptor desc = {
		.provider_name = KBUILD_MODNAME,
	};
	struct badrange_entry *entry;
	int rc = -ENOMEM;

	if (!nr_regions || nr_regions > MAX_REGIONS ||
	    region_intersects(start, size, IORESOURCE_SYSTEM_RAM,
			      IORES_DESC_NONE) != REGION_DISJOINT)
		return -EINVAL;
	memory = memremap(start, size, MEMREMAP_WB);
	if (!memory)
		return -ENOMEM;
	if (!keep)
		memset(memory, 0, size);
	parent = root_device_register(KBUILD_MODNAME);
	if (IS_ERR(parent))
		goto unmap;
	flush_queue = alloc_workqueue(KBUILD_MODNAME, WQ_MEM_RECLAIM | WQ_UNBOUND, 0);
	if (!flush_queue)
		goto unregister;
	if (commands) {
		desc.ndctl = provider_ctl;
		desc.cmd_mask = BIT(ND_CMD_ARS_CAP) | BIT(ND_CMD_CLEAR_ERROR);
		if (scrub)
			desc.cmd_mask |= BIT(ND_CMD_ARS_STATUS);
	}
	bus = nvdimm_bus_register(parent, &desc);
	if (!bus)
		goto destroy;
	list_for_each_entry(entry, &media.list, list)
		nvdimm_bus_add_badrange(bus, start + entry->start, entry->length);
	rc = bus_register_notifier(to_nvdimm_bus_dev(bus)->bus, &hinder_block);
	if (rc)
		goto bus;
	rc = add_regions();
	if (!rc)
		rc = register_pm_notifier(&sleep_block);
	if (!rc)
		return 0;
	bus_unregister_notifier(to_nvdimm_bus_dev(bus)->bus, &hinder_block);
bus:
	nvdimm_bus_unregister(bus);
destroy:
	destroy_workqueue(flush_queue);
unregister:
	root_device_unregister(parent);
unmap:
	memunmap(memory);
	return rc;
}

module_init(provider_init);
module_exit(provider_exit);

MODULE_DESCRIPTION("Persistent memory that fails on demand, for tests");
MODULE_LICENSE("GPL");
