/* Data of every kind: large and small, aligned, constant, with cyclic pointers; jump tables. */
#include <stdint.h>
#include <stdio.h>

static char large[64 << 20];
static int page[1024] __attribute__((aligned(4096))) = {[1023] = 8};
static const struct node { const struct node *next; const char *name; } one, two, three;
static const struct node one = {&two, "one"}, two = {&three, "two"}, three = {&one, "three"};
static const double table[] = {1.5, -2.5, 1e300};
static const char *const names[] = {"zero", "", "two"};

static int jump(int x) {
  switch (x) {
  case 0: return 11; case 1: return 7; case 2: return -4; case 3: return 90;
  case 4: return 6; case 5: return 1000; case 6: return x; case 7: return 3;
  default: return -1;
  }
}
static int threaded(const unsigned char *code) {
  static const void *const places[] = {&&add, &&twice, &&stop};
  int value = 1;
  goto *places[*code++];
add: value += 5; goto *places[*code++];
twice: value *= 2; goto *places[*code++];
stop: return value;
}

int main(void) {
  const struct node *node = &one;
  long sum = 0;
  for (int i = 0; i < 7; i++, node = node->next)
    printf("%s ", node->name);
  for (int i = 0; i < (int)sizeof large; i += 4096)
    sum += large[i], large[i] = 1;
  for (int i = -1; i < 9; i++)
    sum += jump(i) * (i + 2);
  printf("%ld %d %d %s%s\n", sum, page[1023], (int)((uintptr_t)page % 4096), names[0], names[2]);
  printf("%.1f %d\n", table[1], threaded((const unsigned char *)"\0\1\1\0\2"));
  return node == &two;
}
