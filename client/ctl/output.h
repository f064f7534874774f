// SPDX-License-Identifier: Apache-2.0
// How stokerctl speaks: results on standard output, progress and errors on standard error, and exit codes.
#pragma once

#include <google/protobuf/message.h>

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace stoker::ctl {

// The contract of the project's commands; scripts rely on it.
enum ExitCode : int {
  kDone = 0,
  kNo = 1,
  kUsage = 2,
  kNoDaemon = 3,
  kBadData = 4,
  kNotEnough = 5,
  kNotFoundOrNotAllowed = 6,
  kOurBug = 70,
};

// What went wrong, as a code. An InvalidArgument is about an option where it names one, else about the data.
ExitCode ExitCodeOf(const absl::Status& status);

// Where a command writes to, and how. Thread-compatible.
struct Output {
  std::ostream& out;
  std::ostream& err;
  bool out_is_terminal = false;
  bool err_is_terminal = false;
  bool json = false;
  bool quiet = false;
};

// "stokerctl: <what>: <message>" on one line; returns the exit code.
ExitCode Fail(const Output& output, absl::string_view what, const absl::Status& status);

// One JSON document with the names of the proto's fields, on several lines.
void PrintJson(const Output& output, const google::protobuf::Message& message);

// Columns as wide as their widest cell; numbers, as cells that begin with a digit, to the right.
class Table {
 public:
  explicit Table(std::vector<std::string> head) : rows_{std::move(head)} {}
  void Add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  bool empty() const { return rows_.size() == 1; }
  void Print(std::ostream& out) const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// Lines "name   value", the values under each other.
void PrintFields(std::ostream& out, const std::vector<std::pair<std::string, std::string>>& fields);

std::string FormatCount(uint64_t count);          // 1234567 -> "1 234 567"
std::string FormatSeconds(double seconds);        // "850 ms", "12.3 s", "4 min 05 s", "3 h 12 min"
std::string FormatRate(double bytes_per_second);  // "1.2 GiB/s"

// How far something is: one line that is rewritten on a terminal, else a line every few seconds; nothing with --quiet.
class Progress {
 public:
  Progress(const Output& output, std::string what);
  ~Progress();  // takes the line away
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` of `total` bytes (0: unknown), and more to say. Shown at most as often as is readable.
  void Update(uint64_t done, uint64_t total, absl::string_view more, absl::Time now);

 private:
  std::string Line(uint64_t done, uint64_t total, absl::string_view more, absl::Duration elapsed) const;

  const Output& output_;
  const std::string what_;
  const absl::Time started_;
  absl::Time shown_ = absl::InfinitePast();
  bool on_screen_ = false;
};

}  // namespace stoker::ctl
