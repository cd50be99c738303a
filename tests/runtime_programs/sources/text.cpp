// Regular expressions, locales, strings, containers and algorithms.
//
// library: c++
// position: independent
#include <algorithm>
#include <functional>
#include <iostream>
#include <locale>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <regex>
#include <sstream>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

int main() {
  const std::regex pair(R"((\w+)=(\d+))");
  const std::string text = "one=1, two=22; three=333";
  for (std::sregex_iterator each(text.begin(), text.end(), pair), end; each != end; ++each)
    std::cout << (*each)[1] << ':' << (*each)[2] << ' ';
  std::cout << std::regex_replace(text, pair, "$2=$1") << "\n";
  try {
    std::regex wrong("(");
  } catch (const std::regex_error &) {
    std::cout << "wrong pattern\n";
  }
  try {
    std::locale missing("no_such_locale");
  } catch (const std::runtime_error &) {
    std::cout << "no such locale\n";
  }
  std::ostringstream out;
  out.imbue(std::locale::classic());
  out << 1234567.5;
  std::map<std::string, std::vector<int>> map;
  for (int i = 0; i < 20; i++)
    map[i % 3 ? "some" : "third"].push_back(i * i % 7);
  for (auto &[name, numbers] : map) {
    std::sort(numbers.begin(), numbers.end(), std::greater<int>());
    std::cout << name << std::accumulate(numbers.begin(), numbers.end(), 0) << ' ';
  }
  std::unordered_map<int, std::unique_ptr<std::string>> owners;
  for (int i = 0; i < 100; i++)
    owners.emplace(i, std::make_unique<std::string>(std::to_string(i)));
  std::variant<int, std::string> either = "text";
  std::optional<int> nothing;
  std::function<int(int)> twice = [](int x) { return 2 * x; };
  std::cout << out.str() << ' ' << *owners[77] << ' ' << std::get<1>(either) << twice(21) << "\n";
  try {
    (void)std::get<0>(either);
  } catch (const std::bad_variant_access &) {
    std::cout << "bad access\n";
  }
  try {
    (void)nothing.value();
  } catch (const std::bad_optional_access &) {
    std::cout << "nothing\n";
  }
  return static_cast<int>(text.find("two"));
}
