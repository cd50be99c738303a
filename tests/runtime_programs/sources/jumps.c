/* setjmp and longjmp: across frames of two objects, in loops, out of a signal handler.
 *
 * parts: 2
 */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>

extern jmp_buf place;
void leave(int depth, int value);

#if PART == 1
jmp_buf place;
static sigjmp_buf fault;
static volatile int faults;

static void on_fault(int number) {
  faults++;
  siglongjmp(fault, number);
}

int main(void) {
  volatile int rounds = 0;
  int value = setjmp(place);
  printf("setjmp %d\n", value);
  if (rounds++ < 4)
    leave(rounds * 3, rounds);
  signal(SIGSEGV, on_fault);
  for (int i = 0; i < 3; i++)
    if (sigsetjmp(fault, 1) == 0) {
      *(volatile int *)8 = 1;
      puts("not reached");
    }
  printf("faults %d, rounds %d\n", faults, rounds);
  return value;
}
#else
void leave(int depth, int value) {
  char buffer[64];
  sprintf(buffer, "%d", depth);
  if (depth)
    leave(depth - 1, value);
  longjmp(place, value * 10 + (buffer[0] == '0'));
}
#endif
