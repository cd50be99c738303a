// Thread-local variables in two objects, one of which refers to the other's; in several threads.
#include <pthread.h>
#include <stdio.h>

extern __thread int counter;
extern __thread long zeros[100];
int count_there();

#if PART == 1
__thread char text[16] = "initial";
__thread double number_here = 1.5;

static void *run(void *argument) {
  long number = (long)argument;
  for (long each = 0; each < number; ++each)
    ++counter, ++zeros[each];
  text[0] = 'A' + number;
  number_here += number;
  int there = count_there();
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  static char lines[10][80];
  pthread_mutex_lock(&lock);
  snprintf(lines[number], 80, "%ld: %d %d %ld %s %g", number, counter, there, zeros[2], text,
           number_here);
  pthread_mutex_unlock(&lock);
  return lines[number];
}

int main() {
  pthread_t threads[8];
  for (long each = 0; each < 8; ++each)
    pthread_create(&threads[each], 0, run, (void *)each);
  for (int each = 0; each < 8; ++each) {
    void *line;
    pthread_join(threads[each], &line);
    puts((char *)line);
  }
  puts((char *)run((void *)9));
  return counter;
}
#else
__thread int counter = 10;
__thread long zeros[100];
int count_there() { return ++counter; }
#endif
