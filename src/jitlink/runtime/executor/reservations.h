/* Reserved memory, and the allocations in it: what both memory services have in common. */
#ifndef JITLINK_RESERVATIONS_H
#define JITLINK_RESERVATIONS_H

#include <pthread.h>

#include "executor.h"

struct pages {
  uint64_t start, size;
};

struct allocation {
  uint64_t key; /* the lowest address of its segments */
  struct actions actions;
  struct pages *pages; /* what is given back to the system when it is deinitialized */
  size_t count;
  struct allocation *older;
};

struct reservation {
  uint64_t start, size;
  int file; /* that it maps, or -1 */
  uint64_t device, inode;
  struct allocation *allocations;
  struct reservation *older;
};

struct reservations {
  pthread_mutex_t lock; /* guards the list */
  struct reservation *newest;
  bool ignores_unknown_keys, keeps_files;
};

/* Maps memory from offset 0 on, as high as possible below a limit; 0 is none. MAP_FAILED sets errno.
   No page is below the first megabyte, so that null pointers with an offset still fault. */
void *map_below(uint64_t limit, uint64_t size, int protection, int flags, int file);

/* Records memory that maps a file, which is closed with it, or none (-1). */
void add_reservation(struct reservations *all, void *start, uint64_t size, int file);

/* The reservation that contains a range, without its list; its start is 0 if there is none. */
struct reservation place_of(struct reservations *all, uint64_t start, uint64_t size);

/* Whether the descriptor of its file is open still. Linked code may close those it does not know. */
bool has_file(const struct reservation *place);

/* Runs the finalize actions of an allocation, and records it, with pages in memory of malloc.
   Expected<Addr key> */
wrapper_result add_allocation(struct reservations *all, uint64_t key, sps_reader *actions,
                              struct pages *pages, size_t count);

/* Error(Addr instance, Sequence<Addr keys>): runs deallocate actions, the last key's first. */
wrapper_result deinitialize_keys(struct reservations *all, const char *data, size_t size);

/* Error(Addr instance, Sequence<Addr starts>): unmaps reservations, the last one first. */
wrapper_result release_starts(struct reservations *all, const char *data, size_t size);

/* Runs all deallocate actions that are left. Nothing is unmapped: an action may be a function of
   another reservation. */
void finish_allocations(struct reservations *all);

#endif
