// Thread-local variables of two objects, for threads that start before and after the link.
#include <stdint.h>

#ifndef ALIGNMENT
#define ALIGNMENT 4096
#endif
#ifndef MEDIUM
#define MEDIUM 64
#endif

extern __thread int shared;
extern __thread int *pointer;

#if PART == 1

__thread int own = 5;
static __thread int zero;
static __thread long first = 20, second = 300;

int sum(void) { return own + zero + shared; }
int exchange(int value) {
    int old = shared;
    shared = value;
    zero = value;
    return old;
}
long local(void) { return first++ + second--; }
int *address_of_own(void) { return &own; }
int *address_of_shared(void) { return &shared; }

#else

int plain = 77;
__thread int shared = 9;
__thread int *pointer = &plain;
__thread char zeros[300];
static __thread char medium[64] __attribute__((aligned(MEDIUM)));
__thread long large __attribute__((aligned(ALIGNMENT)));

int through_pointer(void) { return *pointer; }
uintptr_t misaligned(void) {
    return (((uintptr_t)medium & (MEDIUM - 1)) | ((uintptr_t)&large & (ALIGNMENT - 1))) + medium[5] + large;
}
int nonzero(void) {
    for (int i = 0; i < 300; ++i)
        if (zeros[i])
            return 1;
    zeros[299] = 0;
    return 0;
}

#endif
