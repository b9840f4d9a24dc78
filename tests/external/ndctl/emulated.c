// SPDX-License-Identifier: GPL-2.0
/*
 * Lets the driver use the kernel's emulated DIMMs (tools/testing/nvdimm): memory from vmalloc() with physical addresses
 * that no device has. pmem-dax.c and test/iomap.c there do the same for nd_pmem.
 */
#include <linux/dax.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/vmalloc.h>
#include "test/nfit_test.h"
#include "watermark.h"

/* This symbol shows the emulated DIMMs that this is not the driver of the installed kernel. */
nfit_test_watermark(pmem);

/*
 * The addresses get struct pages, like those of a real DIMM, but always in RAM, even if the namespace keeps them on the
 * DIMM. Their contents are in the buffer.
 */
void *__real_memremap_pages(struct dev_pagemap *pgmap, int nid);
void *__wrap_memremap_pages(struct dev_pagemap *pgmap, int nid);
void *__wrap_memremap_pages(struct dev_pagemap *pgmap, int nid)
{
	struct nfit_test_resource *nfit_res = get_nfit_res(pgmap->range.start);
	void *addr;

	if (!nfit_res)
		return __real_memremap_pages(pgmap, nid);

	pgmap->flags &= ~PGMAP_ALTMAP_VALID;
	addr = __real_memremap_pages(pgmap, nid);
	if (IS_ERR(addr))
		return addr;
	return nfit_res->buf + pgmap->range.start - nfit_res->res.start;
}

static const struct dax_operations *driver_ops;

/* File systems map the pages of the buffer, one at a time. */
static long direct_access(struct dax_device *dax, pgoff_t pgoff, long nr_pages,
			  enum dax_access_mode mode, void **kaddr, unsigned long *pfn)
{
	unsigned long found_pfn;
	void *found;
	long pages;

	pages = driver_ops->direct_access(dax, pgoff, nr_pages, mode, &found, &found_pfn);
	if (pages > 0 && get_nfit_res(PFN_PHYS(found_pfn))) {
		found_pfn = vmalloc_to_pfn(found);
		pages = 1;
	}
	if (pages > 0) {
		if (kaddr)
			*kaddr = found;
		if (pfn)
			*pfn = found_pfn;
	}
	return pages;
}

static struct dax_operations ops;

struct dax_device *__real_alloc_dax(void *private, const struct dax_operations *ops);
struct dax_device *__wrap_alloc_dax(void *private, const struct dax_operations *ops);
struct dax_device *__wrap_alloc_dax(void *private, const struct dax_operations *from)
{
	driver_ops = from;
	ops = *from;
	ops.direct_access = direct_access;
	return __real_alloc_dax(private, &ops);
}
