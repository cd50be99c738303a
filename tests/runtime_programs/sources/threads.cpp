// std::thread, async, future, mutex, condition_variable, call_once; exceptions from thread to thread.
//
// library: c++
// position: independent
// threads: 8
#include <atomic>
#include <condition_variable>
#include <exception>
#include <future>
#include <iostream>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

static std::once_flag once;
static std::atomic<int> calls{0};
thread_local std::string name = "unnamed";

static void describe(const std::exception &error, int depth = 0) {
  std::cout << std::string(depth, ' ') << error.what() << "\n";
  try {
    std::rethrow_if_nested(error);
  } catch (const std::exception &inner) {
    describe(inner, depth + 1);
  }
}
static void nested(int depth) {
  try {
    if (!depth)
      throw std::out_of_range("innermost");
    nested(depth - 1);
  } catch (...) {
    std::throw_with_nested(std::runtime_error("level " + std::to_string(depth)));
  }
}

int main() {
  std::mutex mutex;
  std::condition_variable condition;
  int turn = 0;
  std::vector<std::thread> threads;
  std::vector<std::exception_ptr> errors(8);
  for (int number = 0; number < 8; number++)
    threads.emplace_back([&, number] {
      std::call_once(once, [] { calls++; });
      name += std::to_string(number);
      std::unique_lock<std::mutex> lock(mutex);
      condition.wait(lock, [&] { return turn == number; });
      std::cout << name << ' ';
      turn++;
      condition.notify_all();
      try {
        throw std::invalid_argument("thread " + std::to_string(number));
      } catch (...) {
        errors[number] = std::current_exception();
      }
    });
  for (auto &thread : threads)
    thread.join();
  std::cout << calls << name << "\n";
  for (auto &error : errors)
    try {
      std::rethrow_exception(error);
    } catch (const std::logic_error &what) {
      std::cout << what.what() << "; ";
    }
  auto good = std::async(std::launch::async, [] { return 42; });
  auto bad = std::async(std::launch::async, []() -> int { throw std::domain_error("async"); });
  std::promise<std::string> promise;
  auto future = promise.get_future();
  std::thread([&] { promise.set_value_at_thread_exit("at exit"); }).join();
  std::cout << good.get() << ' ' << future.get() << "\n";
  try {
    bad.get();
  } catch (const std::domain_error &error) {
    std::cout << error.what() << "\n";
  }
  try {
    nested(3);
  } catch (const std::exception &error) {
    describe(error);
  }
  return std::uncaught_exceptions();
}
