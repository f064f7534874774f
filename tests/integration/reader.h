// SPDX-License-Identifier: Apache-2.0
// The client processes integration_reader and integration_device_reader, seen from a test.
#pragma once

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/integration/fixture.h"
#include "tests/integration/programs.h"

namespace stoker::testing {

// `options`: "batch=8", "hold=2" …, as reader_main.cc lists them.
inline std::vector<std::string> ReaderCommand(const std::string& address, const std::string& dataset,
                                              const std::vector<std::string>& options) {
  std::vector<std::string> command = {Program("integration_reader"), absl::StrCat("address=", address),
                                      absl::StrCat("dataset=", dataset)};
  command.insert(command.end(), options.begin(), options.end());
  return command;
}

// The same of integration_device_reader.
inline std::vector<std::string> DeviceReaderCommand(const std::string& address, const std::string& dataset,
                                                    const std::vector<std::string>& options) {
  std::vector<std::string> command = ReaderCommand(address, dataset, options);
  command[0] = Program("integration_device_reader");
  return command;
}

// What a reader says it read.
inline Digests DigestsIn(const std::string& output) {
  Digests digests;
  const std::vector<std::string> lines = absl::StrSplit(output, '\n');
  for (const std::string& line : lines) {
    int epoch = 0, step = 0;
    unsigned digest = 0;
    if (std::sscanf(line.c_str(), "batch %d:%d %x", &epoch, &step, &digest) == 3) {
      EXPECT_TRUE(digests.emplace(std::pair(epoch, step), digest).second) << line << " came twice";
    }
  }
  return digests;
}

}  // namespace stoker::testing
