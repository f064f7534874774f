// SPDX-License-Identifier: Apache-2.0
// What CLI11 checks of the numbers of the command line. Its own PositiveNumber and NonNegativeNumber name the largest
// double, with 309 digits, when they refuse a value. For programs that link CLI11.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace stoker {

// Also for unsigned options, for which CLI11 would take -1 as the largest number there is.
inline CLI::Validator AtLeastZero() {
  const auto check = [](const std::string& text) {
    double value;
    const bool good = absl::SimpleAtod(text, &value) && value >= 0;
    return good ? std::string() : absl::StrCat(text, " is not a number of at least 0");
  };
  return {check, ">= 0", "AtLeastZero"};
}

inline CLI::Validator AboveZero() {
  const auto check = [](const std::string& text) {
    double value;
    const bool good = absl::SimpleAtod(text, &value) && value > 0;
    return good ? std::string() : absl::StrCat(text, " is not a number above 0");
  };
  return {check, "> 0", "AboveZero"};
}

}  // namespace stoker
