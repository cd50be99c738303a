// What C++ needs of a runtime: exceptions, static objects, thread-local variables.
#include <cstdio>
#include <stdexcept>
#include <string>
#include <thread>
#include <typeinfo>

thread_local int calls = 40;

struct Named {
  std::string name;
  explicit Named(const char *text) : name(text) { std::printf("begin %s\n", text); }
  ~Named() { std::printf("end %s\n", name.c_str()); }
};

static Named first("first"), second("second");

struct Problem : std::runtime_error {
  using std::runtime_error::runtime_error;
};

static int check(int level) {
  Named local("local");
  if (level > 1)
    throw Problem("level " + std::to_string(level));
  return calls += level;
}

int main(int count, char **words) {
  int status = 0;
  for (int level = 1; level < 3; level++)
    try {
      status += check(level);
    } catch (const std::exception &error) {
      const auto *problem = dynamic_cast<const Problem *>(&error);
      std::printf("%s: %s\n", problem ? "problem" : "error", error.what());
    }
  std::thread other([] { std::printf("another thread: %d\n", calls += 2); });
  other.join();
  std::printf("%d %s %d\n", calls, words[count - 1], status);
  return status;
}
