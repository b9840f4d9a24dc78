// SPDX-License-Identifier: GPL-2.0
/*
 * ledger POOL ROUNDS: a child adds entries to a ledger in a pool and is killed. Each entry and the ledger's sum change
 * in one transaction. After the kill, the entries must add up to the sum, and include all that the child had committed.
 */
#define _GNU_SOURCE
#include <libpmem.h>
#include <libpmemobj.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define ENTRIES 2000000

struct ledger {
	uint64_t count;
	uint64_t sum;
	uint64_t entry[ENTRIES];
};

static PMEMobjpool *open_pool(const char *path, struct ledger **ledger)
{
	PMEMobjpool *pool = pmemobj_open(path, "ledger");

	if (!pool)
		pool = pmemobj_create(path, "ledger", 64 << 20, 0600);
	if (!pool) {
		fprintf(stderr, "%s: %s\n", path, pmemobj_errormsg());
		exit(1);
	}
	*ledger = pmemobj_direct(pmemobj_root(pool, sizeof(**ledger)));
	return pool;
}

static void add(PMEMobjpool *pool, struct ledger *ledger, uint64_t value)
{
	TX_BEGIN(pool) {
		pmemobj_tx_add_range_direct(ledger, offsetof(struct ledger, entry));
		pmemobj_tx_add_range_direct(&ledger->entry[ledger->count], sizeof(value));
		ledger->entry[ledger->count] = value;
		ledger->sum += value;
		ledger->count++;
	} TX_ONABORT {
		fprintf(stderr, "aborted: %s\n", pmemobj_errormsg());
		exit(1);
	} TX_END
}

/* The library flushes caches if a file is mapped with MAP_SYNC, and calls msync() otherwise. */
static int is_persistent(const char *pool)
{
	char path[4096];
	size_t length;
	int is_pmem = 0;
	void *map;

	snprintf(path, sizeof(path), "%s.map", pool);
	map = pmem_map_file(path, 4096, PMEM_FILE_CREATE, 0600, &length, &is_pmem);
	return map && is_pmem;
}

int main(int argc, char **argv)
{
	volatile uint64_t *known = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (argc != 3 || known == MAP_FAILED)
		return 2;
	if (!is_persistent(argv[1])) {
		fprintf(stderr, "%s is not mapped as persistent memory\n", argv[1]);
		return 1;
	}
	for (int round = 0; round < atoi(argv[2]); round++) {
		uint64_t sum = 0, before = *known;
		struct ledger *ledger;
		PMEMobjpool *pool;
		int status;
		pid_t child = fork();

		if (!child) {
			pool = open_pool(argv[1], &ledger);
			srandom(getpid());
			while (ledger->count < ENTRIES) {
				add(pool, ledger, random());
				*known = ledger->count;
			}
			return 0;
		}
		/* Until the first commit, then for a random time. */
		for (int wait = 0; *known == before && wait < 30000; wait++)
			usleep(1000);
		usleep(1000 + round * 7919 % 100000);
		kill(child, SIGKILL);
		if (waitpid(child, &status, 0) != child || !WIFSIGNALED(status)) {
			fprintf(stderr, "the child ended by itself, status %d\n", status);
			return 1;
		}
		pool = open_pool(argv[1], &ledger);
		for (uint64_t i = 0; i < ledger->count; i++)
			sum += ledger->entry[i];
		printf("%lu entries, of which the child knew %lu\n", ledger->count, *known);
		if (sum != ledger->sum || ledger->count < *known || *known == before) {
			fprintf(stderr, "the sum is %lu, the entries' %lu\n", ledger->sum, sum);
			return 1;
		}
		pmemobj_close(pool);
	}
	return 0;
}
