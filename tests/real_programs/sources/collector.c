/* libgc finds the roots of a program in the writable segments that dl_iterate_phdr lists. */
#include <gc.h>
#include <stdio.h>

struct node {
  struct node *next;
  long value;
};

static struct node *list;
struct node *zeroed[1000];
struct node *initialised[2] = {(struct node *)1, (struct node *)1};

static struct node *make(long value, struct node *next) {
  struct node *node = GC_MALLOC(sizeof *node);
  node->value = value;
  node->next = next;
  return node;
}

int main(void) {
  GC_INIT();
  for (long each = 0; each < 100000; ++each) {
    list = make(each, list);
    if (each % 100 == 0)
      zeroed[each / 100] = make(each, 0);
  }
  initialised[1] = make(77, 0);
  for (int round = 0; round < 5; ++round) {
    GC_gcollect();
    for (int each = 0; each < 100000; ++each)
      make(-1, 0);
  }
  long count = 0, sum = 0, sum_of_zeroed = 0;
  for (struct node *node = list; node; node = node->next)
    ++count, sum += node->value;
  for (int each = 0; each < 1000; ++each)
    sum_of_zeroed += zeroed[each]->value;
  printf("%ld %ld %ld %ld\n", count, sum, sum_of_zeroed, initialised[1]->value);
  /* Garbage is collected. */
  printf("%d\n", GC_get_heap_size() < 64u << 20);
  return 0;
}
