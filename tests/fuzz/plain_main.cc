// SPDX-License-Identifier: Apache-2.0
// For compilers without libFuzzer: runs the target on each file of the corpus, and on mutations of it that are the same
// in each run. Takes libFuzzer's command line as far as it matters: -runs=N mutations in all, and directories.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

void Run(const std::string& bytes) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

// One of: a bit, a byte, a piece cut out, repeated or taken from elsewhere, a word that parsers stumble over.
void Mutate(const std::vector<std::string>& seeds, std::mt19937_64* random, std::string* bytes) {
  constexpr absl::string_view kWords[] = {
      "nan", "inf", "-1", "0",    "1e999", "99999999999999999999", "\0",     "\n", "\"", "[[[",
      "}",   ",",   ":",  "\xff", "\r\n",  "4294967296",           "1e-320", " ",  "''", "{"};
  const auto below = [&](size_t limit) { return limit == 0 ? 0 : (*random)() % limit; };
  const size_t at = below(bytes->size() + 1);
  const size_t length = below(std::min<size_t>(bytes->size() - at, 16) + 1);
  switch (below(7)) {
    case 0:
      if (at < bytes->size()) (*bytes)[at] = static_cast<char>((*bytes)[at] ^ (1 << below(8)));
      break;
    case 1:
      if (at < bytes->size()) (*bytes)[at] = static_cast<char>(below(256));
      break;
    case 2:
      bytes->erase(at, length);
      break;
    case 3:
      bytes->insert(at, bytes->substr(at, length));
      break;
    case 4:
      bytes->resize(at);
      break;
    case 5: {
      const std::string& other = seeds[below(seeds.size())];
      bytes->insert(at, other.substr(below(other.size() + 1), below(32)));
      break;
    }
    default:
      bytes->replace(at, length, std::string(kWords[below(std::size(kWords))]));
  }
}

}  // namespace

int main(int argc, char** argv) {
  constexpr size_t kMaxBytes = 1 << 16;
  uint64_t runs = 0;
  std::vector<std::string> seeds;
  for (int i = 1; i < argc; ++i) {
    const absl::string_view argument = argv[i];
    if (absl::StartsWith(argument, "-runs=") && !absl::SimpleAtoi(argument.substr(6), &runs)) return 2;
    if (absl::StartsWith(argument, "-")) continue;
    std::vector<std::filesystem::path> files(std::filesystem::directory_iterator(argv[i]), {});
    std::sort(files.begin(), files.end());
    for (const auto& path : files) {
      std::ifstream file(path, std::ios::binary);
      seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
  }
  if (seeds.empty()) {
    std::fprintf(stderr, "no corpus\n");
    return 2;
  }
  for (const std::string& seed : seeds) Run(seed);
  std::mt19937_64 random(1);
  for (uint64_t run = 0; run < runs; ++run) {
    std::string bytes = seeds[random() % seeds.size()];
    for (uint64_t count = 1 + random() % 4; count > 0; --count) Mutate(seeds, &random, &bytes);
    if (bytes.size() > kMaxBytes) bytes.resize(kMaxBytes);
    Run(bytes);
  }
  std::printf("%zu seeds, %llu mutations\n", seeds.size(), static_cast<unsigned long long>(runs));
  return 0;
}
