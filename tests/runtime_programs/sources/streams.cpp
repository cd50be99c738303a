// Streams in initialisers and finalisers, before and after main; buffers are flushed.
//
// parts: 2
// library: c++
// position: independent
#include <fstream>
#include <iomanip>
#include <iostream>
#include <sstream>
#include <string>

struct Speaker {
  std::string name;
  explicit Speaker(const char *text) : name(text) { std::cout << "hello " << name << '\n'; }
  ~Speaker() { std::cout << "goodbye " << name << '\n'; }
};
static Speaker speaker{PART == 1 ? "one" : "two"};
void more(std::ostream &);

#if PART == 1
int main() {
  more(std::cout);
  std::ostringstream text;
  text << std::setw(8) << std::setfill('*') << std::fixed << std::setprecision(3) << 3.14159;
  std::cout << text.str() << std::hex << " " << 255 << std::dec << "\n";
  std::ifstream missing("/no such file");
  std::cout << missing.is_open() << missing.fail() << "\n";
  try {
    missing.exceptions(std::ios::failbit);
  } catch (const std::ios_base::failure &) {
    std::cout << "failure\n";
  }
  std::string word;
  std::cin >> word;
  std::cerr << "to standard error " << word.empty() << std::endl;
  std::cout << "not flushed";
  return 3;
}
#else
void more(std::ostream &out) {
  std::istringstream in("12 abc 3.5");
  int number;
  std::string word;
  double real;
  in >> number >> word >> real;
  out << number << word << real << (in.eof() ? " end" : "") << std::endl;
}
#endif
