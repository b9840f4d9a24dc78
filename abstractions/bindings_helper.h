/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel interfaces that the `kernel` crate has no bindings for. bindgen
 * generates `bindings_generated.rs` from them; no C is compiled into the module.
 */

#include <linux/badblocks.h>
#include <linux/blkdev.h>
#include <linux/dax.h>
#include <linux/io.h>
#include <linux/libnvdimm.h>
#include <linux/memremap.h>
#include <linux/nd.h>
#include <linux/ndctl.h>
#include <linux/page-flags.h>
#include <linux/set_memory.h>
#include <linux/suspend.h>
#include <linux/uio.h>

#ifdef CONFIG_ARM64
#include <asm/cpufeature.h>
#endif

#ifdef CONFIG_X86_MCE
#include <asm/mce.h>
#endif

#ifdef CONFIG_ACPI_APEI_GHES
#include <acpi/ghes.h>
#include <linux/cper.h>
#endif

#include "nd.h"
#include "nd-core.h"
#include "pfn.h"
#include "btt.h"

#if !IS_ENABLED(CONFIG_LIBNVDIMM) || !IS_ENABLED(CONFIG_NVDIMM_PFN) || !IS_ENABLED(CONFIG_NVDIMM_DAX) || \
	!IS_ENABLED(CONFIG_ND_CLAIM) || !IS_ENABLED(CONFIG_FS_DAX) || \
	!IS_ENABLED(CONFIG_ZONE_DEVICE) || !IS_ENABLED(CONFIG_ARCH_HAS_PMEM_API) || \
	!(IS_ENABLED(CONFIG_X86_64) || IS_ENABLED(CONFIG_ARM64))
#error "rust_pmem needs LIBNVDIMM, NVDIMM_PFN, NVDIMM_DAX, ND_CLAIM, FS_DAX, ZONE_DEVICE, ARCH_HAS_PMEM_API, and X86_64 or ARM64"
#endif

/* Unbind waits for threads that were preempted while they used a page. */
#if defined(CONFIG_PREEMPTION) && !defined(CONFIG_TASKS_RCU)
#error "rust_pmem needs TASKS_RCU where the kernel is preemptible: enable BPF_SYSCALL, KPROBES or FUNCTION_TRACER"
#endif

/* Macros become constants of the same name: Kbuild strips the prefix. */
const blk_features_t RUST_CONST_HELPER_BLK_FEAT_WRITE_CACHE = BLK_FEAT_WRITE_CACHE;
const blk_features_t RUST_CONST_HELPER_BLK_FEAT_FUA = BLK_FEAT_FUA;
const blk_features_t RUST_CONST_HELPER_BLK_FEAT_SYNCHRONOUS = BLK_FEAT_SYNCHRONOUS;
const blk_features_t RUST_CONST_HELPER_BLK_FEAT_DAX = BLK_FEAT_DAX;
const blk_features_t RUST_CONST_HELPER_BLK_FEAT_NOWAIT = BLK_FEAT_NOWAIT;
const blk_features_t RUST_CONST_HELPER_BLK_FEAT_IO_STAT = BLK_FEAT_IO_STAT;
const blk_opf_t RUST_CONST_HELPER_REQ_OP_MASK = REQ_OP_MASK;
const blk_opf_t RUST_CONST_HELPER_REQ_PREFLUSH = REQ_PREFLUSH;
const blk_opf_t RUST_CONST_HELPER_REQ_FUA = REQ_FUA;
const blk_opf_t RUST_CONST_HELPER_REQ_NOWAIT = REQ_NOWAIT;
const unsigned long RUST_CONST_HELPER_ARCH_MEMREMAP_PMEM = ARCH_MEMREMAP_PMEM;
#ifdef CONFIG_ACPI_APEI_GHES
const u64 RUST_CONST_HELPER_CPER_MEM_VALID_PA = CPER_MEM_VALID_PA;
const u64 RUST_CONST_HELPER_CPER_MEM_VALID_PA_MASK = CPER_MEM_VALID_PA_MASK;
#endif
#ifdef CONFIG_X86_64
const size_t RUST_CONST_HELPER_X86_CAPABILITY_OFFSET = offsetof(struct cpuinfo_x86, x86_capability);
#endif
#ifdef CONFIG_ARM64
/* Signed, because bindgen takes no larger value for a constant than LONG_MAX. */
const long RUST_CONST_HELPER_VMEMMAP_START = VMEMMAP_START;
const u32 RUST_CONST_HELPER_SYS_CTR_EL0 = SYS_CTR_EL0;
#endif
const unsigned long RUST_CONST_HELPER_ND_DRIVER_NAMESPACE_IO = ND_DRIVER_NAMESPACE_IO;
const unsigned long RUST_CONST_HELPER_ND_DRIVER_NAMESPACE_PMEM = ND_DRIVER_NAMESPACE_PMEM;
const unsigned long RUST_CONST_HELPER_ND_CMD_CLEAR_ERROR = ND_CMD_CLEAR_ERROR;
