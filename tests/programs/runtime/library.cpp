// The C++ library: streams, strings, containers, threads that throw, inline variables.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

struct Logger {
  std::string name;
  explicit Logger(std::string n) : name(std::move(n)) { std::printf("+%s\n", name.c_str()); }
  ~Logger() { std::printf("-%s\n", name.c_str()); }
};
template <typename T> struct Shared {
  static Logger logger;
};
template <typename T> Logger Shared<T>::logger{"template"};
inline Logger shared_inline{"inline"};
Logger &local();
int work(int number);
std::exception_ptr keep(int number);

#if PART == 1
static Logger mine{"one"};
__attribute__((init_priority(200))) static Logger first{"first"};

int main() {
  std::mutex mutex;
  std::vector<std::thread> threads;
  int caught = 0;
  for (int number = 0; number < 8; ++number)
    threads.emplace_back([&, number] {
      for (int round = 0; round < 50; ++round)
        try {
          work(number);
        } catch (const std::out_of_range &error) {
          std::lock_guard<std::mutex> lock(mutex);
          caught += std::string(error.what()).size();
        }
    });
  for (auto &thread : threads)
    thread.join();
  std::cout << caught << " " << local().name << " " << Shared<int>::logger.name << std::endl;
  try {
    std::rethrow_exception(keep(5));
  } catch (const std::logic_error &error) {
    std::cout << "kept: " << error.what() << "\n";
  }
  try {
    std::vector<int>().at(3);
  } catch (const std::exception &) {
    std::cout << "the library throws\n";
  }
  std::smatch match;
  std::string text = "linked at 42 ms";
  if (std::regex_search(text, match, std::regex("([0-9]+) ms")))
    std::cout << match[1] << "\n";
  std::map<std::string, std::shared_ptr<Logger>> loggers;
  loggers["a"] = std::make_shared<Logger>("in a map");
  std::istringstream stream("3 4");
  int a, b;
  stream >> a >> b;
  return a + b;
}
#else
static Logger mine{"two"};

Logger &local() {
  static Logger logger{"local"};
  return logger;
}
int work(int number) {
  if (number % 2)
    throw std::out_of_range("odd");
  (void)local();
  return Shared<int>::logger.name.size();
}
std::exception_ptr keep(int number) {
  try {
    throw std::logic_error(std::to_string(number));
  } catch (...) {
    return std::current_exception();
  }
}
#endif
