// SPDX-License-Identifier: Apache-2.0
#include "shared/base/size.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"

namespace stoker {
namespace {

struct Unit {
  const char* name;
  double bytes;
};
constexpr Unit kUnits[] = {{"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}, {"TiB", 1099511627776.0},
                           {"KB", 1e3},     {"MB", 1e6},        {"GB", 1e9},           {"TB", 1e12},
                           {"B", 1.0}};

}  // namespace

absl::StatusOr<uint64_t> ParseSize(absl::string_view text) {
  absl::string_view number = absl::StripAsciiWhitespace(text);
  double unit = 1.0;
  for (const Unit& candidate : kUnits) {
    if (absl::EndsWithIgnoreCase(number, candidate.name)) {
      number.remove_suffix(absl::string_view(candidate.name).size());
      number = absl::StripTrailingAsciiWhitespace(number);
      unit = candidate.bytes;
      break;
    }
  }
  const bool plain = !number.empty() && number.find_first_not_of("0123456789.") == absl::string_view::npos;
  uint64_t whole = 0;  // read as an integer where it is one: not all are doubles
  if (plain && unit == 1.0 && absl::SimpleAtoi(number, &whole) && whole >> 63 == 0) return whole;
  double value = 0;
  if (!plain || !absl::SimpleAtod(number, &value) || value * unit >= std::ldexp(1.0, 63)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\" is not a size: write bytes, or a number with KiB, MiB, GiB or TiB"));
  }
  return static_cast<uint64_t>(value * unit);
}

std::string FormatSize(uint64_t bytes) {
  constexpr const char* kNames[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= 1024.0 && unit < 6; ++unit) value /= 1024.0;
  return unit == 0 ? absl::StrCat(bytes, " B") : absl::StrFormat("%.*f %s", value < 10 ? 2 : 1, value, kNames[unit]);
}

}  // namespace stoker
