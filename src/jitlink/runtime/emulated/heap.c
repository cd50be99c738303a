/* malloc and its like: blocks in order of address, first fit, free neighbours merged.
 *
 * A block begins with its size and whether it is used, and data follows, aligned to 16 bytes.
 */
#include "library.h"

#define ALIGNMENT 16

struct block {
  size_t size; /* of the data, a multiple of ALIGNMENT */
  size_t is_used;
} __attribute__((aligned(ALIGNMENT)));

static struct block *first, *end;

static struct block *next_of(struct block *block) {
  return (struct block *)((char *)(block + 1) + block->size);
}

static void obtain(void) {
  size_t size;
  first = __jitlink_host_heap(&size);
  end = (struct block *)((char *)first + size / ALIGNMENT * ALIGNMENT);
  first->size = (size_t)((char *)end - (char *)(first + 1));
  first->is_used = 0;
}

static void merge(struct block *block) {
  for (struct block *next; (next = next_of(block)) < end && !next->is_used;)
    block->size += sizeof *next + next->size;
}

static void cut(struct block *block, size_t size) {
  if (block->size < size + sizeof *block + ALIGNMENT)
    return;
  size_t rest = block->size - size - sizeof *block;
  block->size = size;
  struct block *other = next_of(block);
  other->size = rest;
  other->is_used = 0;
  merge(other);
}

static size_t rounded(size_t size) {
  return size ? (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT : ALIGNMENT;
}

void *malloc(size_t size) {
  if (size > PTRDIFF_MAX - ALIGNMENT)
    return 0;
  size = rounded(size);
  if (!first)
    obtain();
  for (struct block *block = first; block < end; block = next_of(block))
    if (!block->is_used) {
      merge(block);
      if (block->size >= size) {
        block->is_used = 1;
        cut(block, size);
        return block + 1;
      }
    }
  return 0;
}

void free(void *data) {
  if (!data)
    return;
  struct block *block = (struct block *)data - 1;
  /* Freed twice, or no block at all. */
  if (block->is_used != 1)
    __jitlink_host_abort();
  block->is_used = 0;
  merge(block);
}

void *calloc(size_t count, size_t size) {
  size_t total;
  if (__builtin_mul_overflow(count, size, &total))
    return 0;
  void *data = malloc(total);
  return data ? memset(data, 0, total) : 0;
}

void *realloc(void *data, size_t size) {
  if (!data)
    return malloc(size);
  if (size > PTRDIFF_MAX - ALIGNMENT)
    return 0;
  struct block *block = (struct block *)data - 1;
  size_t wanted = rounded(size), had = block->size;
  merge(block);
  if (block->size >= wanted) {
    cut(block, wanted);
    return data;
  }
  cut(block, had);
  void *other = malloc(size);
  if (!other)
    return 0;
  memcpy(other, data, had < size ? had : size);
  free(data);
  return other;
}

void *aligned_alloc(size_t alignment, size_t size) {
  /* Data that is free in front of it stays with the block before it. */
  if (alignment <= ALIGNMENT)
    return malloc(size);
  if (alignment & (alignment - 1) || size > PTRDIFF_MAX - 2 * alignment)
    return 0;
  char *data = malloc(size + alignment + sizeof(struct block));
  if (!data || !((uintptr_t)data & (alignment - 1)))
    return data;
  struct block *block = (struct block *)data - 1;
  uintptr_t place = ((uintptr_t)(data + sizeof *block) + alignment - 1) & ~(alignment - 1);
  struct block *other = (struct block *)place - 1;
  other->size = (size_t)((char *)next_of(block) - (char *)(other + 1));
  other->is_used = 1;
  block->size = (size_t)((char *)other - data);
  free(data);
  return other + 1;
}

int posix_memalign(void **data, size_t alignment, size_t size) {
  *data = aligned_alloc(alignment, size);
  return *data ? 0 : 12 /* ENOMEM */;
}
