/* _Unwind_Backtrace through two objects and a function of the C library. */
#include <stdio.h>
#include <stdlib.h>
#include <unwind.h>

int middle(int depth, int (*function)(const void *, const void *));
int leaf(const void *a, const void *b);
int main(void);

#if PART == 1
static const struct { const char *name; void *address; } known[] = {
    {"leaf", (void *)leaf}, {"middle", (void *)middle}, {"main", (void *)main}};

static _Unwind_Reason_Code frame(struct _Unwind_Context *context, void *unused) {
  void *start = _Unwind_FindEnclosingFunction((void *)(_Unwind_GetIP(context) - 1));
  (void)unused;
  for (int each = 0; each < 3; ++each)
    if (known[each].address == start)
      printf("%s\n", known[each].name);
  return start == (void *)main ? _URC_END_OF_STACK : _URC_NO_REASON;
}

static int done;

int leaf(const void *a, const void *b) {
  (void)a, (void)b;
  if (!done++)
    _Unwind_Backtrace(frame, 0);
  return 0;
}

int main(void) {
  int result = middle(3, leaf);
  return result;
}
#else
int middle(int depth, int (*function)(const void *, const void *)) {
  volatile int numbers[2] = {1, 2};
  if (depth)
    return middle(depth - 1, function) + numbers[0];
  qsort((void *)numbers, 2, sizeof(int), function);
  return numbers[0];
}
#endif
