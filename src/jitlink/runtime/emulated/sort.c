/* qsort, by heaps: no memory, and no bad case. bsearch. */
#include "library.h"

typedef int Compare(const void *, const void *);

static void swap(char *left, char *right, size_t size) {
  for (; size; --size, ++left, ++right) {
    char byte = *left;
    *left = *right;
    *right = byte;
  }
}

static void sift(char *data, size_t place, size_t count, size_t size, Compare *compare) {
  for (size_t child; (child = 2 * place + 1) < count; place = child) {
    if (child + 1 < count && compare(data + child * size, data + (child + 1) * size) < 0)
      ++child;
    if (compare(data + place * size, data + child * size) >= 0)
      return;
    swap(data + place * size, data + child * size, size);
  }
}

void qsort(void *array, size_t count, size_t size, Compare *compare) {
  char *data = array;
  for (size_t place = count / 2; place-- > 0;)
    sift(data, place, count, size, compare);
  for (size_t last = count; last-- > 1;) {
    swap(data, data + last * size, size);
    sift(data, 0, last, size, compare);
  }
}

void *bsearch(const void *key, const void *array, size_t count, size_t size, Compare *compare) {
  const char *data = array;
  while (count) {
    const char *middle = data + count / 2 * size;
    int order = compare(key, middle);
    if (!order)
      return (void *)middle;
    if (order > 0) {
      data = middle + size;
      count -= count / 2 + 1;
    } else
      count /= 2;
  }
  return 0;
}
