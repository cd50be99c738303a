// Thread-local objects: constructed on first use in a thread, destroyed in reverse at its end.
#include <cstdio>
#include <mutex>
#include <string>
#include <thread>

struct Tracker {
    explicit Tracker(int number) : number(number) { std::printf("made %d\n", number); }
    ~Tracker() { std::printf("destroyed %d, %d\n", number, uses); }
    int number;
    int uses = 0;
};

int next();
extern thread_local Tracker shared;
extern thread_local const int plain;

#if PART == 1

static thread_local Tracker own(next());
static thread_local std::string text = "text that is longer than what a string holds itself";
template <typename T> struct Holder {
    static thread_local T value;
};
template <typename T> thread_local T Holder<T>::value = static_cast<T>(next());

static void work(const char *name) {
    thread_local Tracker local(next());
    own.uses += 1;
    shared.uses += 2;
    local.uses += 3;
    text += name;
    std::printf("%s %s %ld %d\n", name, text.c_str(), Holder<long>::value++, plain);
}

int main() {
    static std::once_flag once;
    for (const char *name : {" one", " two"})
        std::thread([name] {
            work(name);
            work(name);
            std::call_once(once, [&] { std::printf("once %s\n", name); });
        }).join();
    work(" main");
    std::call_once(once, [] { std::printf("never\n"); });
}

#else

static int made = 0;
int next() { return ++made; }
thread_local Tracker shared(100 + next());
thread_local const int plain = 6;

#endif
