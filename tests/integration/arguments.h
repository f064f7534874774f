// SPDX-License-Identifier: Apache-2.0
// Command lines of the programs that tests start: "name=value" each.
#pragma once

#include <iostream>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace stoker::testing {

using Arguments = std::map<std::string, std::string>;

inline Arguments ParseArguments(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::pair<std::string, std::string> option = absl::StrSplit(argv[i], absl::MaxSplits('=', 1));
    arguments[option.first] = option.second;
  }
  return arguments;
}

inline int Number(const Arguments& arguments, const std::string& name, int otherwise) {
  const auto it = arguments.find(name);
  int value = otherwise;
  if (it != arguments.end() && !absl::SimpleAtoi(it->second, &value)) std::cerr << name << ": no number\n";
  return value;
}

}  // namespace stoker::testing
