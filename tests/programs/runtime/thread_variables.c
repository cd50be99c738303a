// Thread-local variables: initialisation images, zeros, alignment, pointers, in other objects and libc.
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

enum { THREADS = 8, ROUNDS = 1000 };

struct pair {
    int *pointer;
    int (*function)(void);
};

extern __thread int counter;
extern __thread char zeros[100];
extern __thread struct pair pair;
extern __attribute__((visibility("hidden"))) __thread long hidden;
int count(void);
const void *aligned(void);

#if PART == 1

static __thread int first = 1;
static __thread short second = -2;
static __thread int absent;
__thread double weight = 0.5;

static int value(void) { return 40 + first; }

// A checksum of all variables of a thread.
static long sum(void) {
    long result = first + second + absent + counter + hidden + *pair.pointer + pair.function();
    for (int i = 0; i < 100; ++i)
        result += zeros[i];
    return result + (long)(weight * 4);
}

static int (*volatile indirect)(void) = value;

static void *work(void *argument) {
    long number = (long)argument, before = sum(), misaligned = (uintptr_t)aligned() & 63;
    for (int i = 0; i < ROUNDS; ++i) {
        first += number;
        absent = count();
        hidden += first & 1;
        zeros[i % 100] = number;
        weight += 1;
    }
    close(-1);
    int error = errno;
    errno = number;
    return (void *)(sum() * 1000 + before + misaligned + error + indirect() + errno);
}

int main(void) {
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; ++i)
        if (pthread_create(&threads[i], NULL, work, (void *)i))
            return 1;
    for (int i = 0; i < THREADS; ++i) {
        void *result;
        pthread_join(threads[i], &result);
        printf("thread %d: %ld\n", i, (long)result);
    }
    printf("main: %ld\n", sum());
    printf("main: %ld\n", (long)work((void *)5));
    printf("main: %ld\n", sum());
    return (int)sum() & 0x7f;
}

#else

static int target = 1000;
static int seven(void) { return 7; }

__thread int counter = 100;
__thread char zeros[100];
__thread struct pair pair = {&target, seven};
__attribute__((visibility("hidden"))) __thread long hidden = -5;
static __thread char block[64] __attribute__((aligned(64)));

int count(void) { return ++counter; }
const void *aligned(void) { return block; }

#endif
