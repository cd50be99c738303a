// Uncaught exceptions: with a terminate handler, and without.
//
// run: uncaught
// run: noexcept
// run: destructor
// run: thread
// run: pure
// run: initializer
// run: rethrow
#include <exception>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *how = "";
static void say(const char *text) {
  if (write(1, text, strlen(text)) < 0)
    _exit(99);
}
[[noreturn]] static void on_terminate() {
  say("terminate handler\n");
  abort();
}
struct Guard { ~Guard() { say("~Guard\n"); } };
struct Base {
  Base() { early(); }
  void early() { pure(); }
  virtual void pure() = 0;
  virtual ~Base() {}
};
struct Derived : Base { void pure() override {} };
struct Throws { ~Throws() noexcept(false) { throw 1; } };
static void quiet() noexcept {
  Guard guard;
  throw 3;
}
static void *thread(void *) {
  Guard guard;
  throw 4;
}
struct Early {
  Early() {
    char buffer[4096] = "";
    FILE *file = fopen("/proc/self/cmdline", "r");
    size_t size = fread(buffer, 1, sizeof buffer - 1, file);
    fclose(file);
    say("initializer\n");
    if (size > 11 && !strcmp(buffer + size - 12, "initializer"))
      throw 5;
  }
} early;

int main(int argc, char **argv) {
  how = argc > 1 ? argv[1] : "";
  std::set_terminate(on_terminate);
  Guard outer;
  if (!strcmp(how, "uncaught"))
    throw 1;
  if (!strcmp(how, "noexcept"))
    quiet();
  if (!strcmp(how, "destructor")) {
    Throws throws;
    throw 2;
  }
  if (!strcmp(how, "thread")) {
    pthread_t other;
    pthread_create(&other, nullptr, thread, nullptr);
    pthread_join(other, nullptr);
  }
  if (!strcmp(how, "pure"))
    Derived();
  if (!strcmp(how, "rethrow"))
    throw;
  return 0;
}
