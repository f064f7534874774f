// SPDX-License-Identifier: Apache-2.0
// Reading text that somebody else wrote: lines of a byte range, numbers, and errors that name file and line.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/ingest/unit.h"
#include "shared/base/unique_fd.h"

namespace stoker::ingest {

inline constexpr uint64_t kMaxLineBytes = 1 << 30;

// InvalidArgument "reading <place>: <reason>; <remedy>".
absl::Status BadData(absl::string_view place, absl::string_view reason, absl::string_view remedy);

// The place and the reason of an error that BadData made; empty ones of any other.
struct BadDataParts {
  std::string place;
  std::string reason;
};
BadDataParts PartsOf(const absl::Status& status);

// For messages: in quotation marks, escaped, cut to 40 bytes.
std::string Quoted(absl::string_view text);

bool IsUtf8(absl::string_view text);

// Without spaces, tabs and carriage returns at both ends.
absl::string_view Trim(absl::string_view text);

// A number in decimal notation, with an optional sign and exponent; NaN for a missing one: "?" or "NaN" in any case.
// Infinite for "inf" and for numbers beyond doubles. False, and `value` untouched, for anything else.
bool ParseValue(absl::string_view text, double* value);

// The same at the start of [begin, end): the first character that does not belong to the number, or nullptr.
const char* ParseValuePrefix(const char* begin, const char* end, double* value);

// Lines of text in memory, for small files. A byte-order mark at the start is not part of the first; a line ends with
// LF or CRLF.
class TextLines {
 public:
  explicit TextLines(absl::string_view text);

  bool Next(absl::string_view* line);      // false at the end
  uint64_t line() const { return line_; }  // of the last one, from 1; 0 before it
  uint64_t bytes_left() const { return rest_.size(); }
  absl::string_view rest() const { return rest_; }

 private:
  absl::string_view rest_;
  uint64_t line_ = 0;
};

// The fields of a line, separated by blanks.
std::vector<absl::string_view> Fields(absl::string_view line);

// The lines that start in [begin, end) of a file: units that share a file see each line exactly once. A line ends with
// LF or CRLF, the last one with the file; a byte-order mark at the start of the file is not part of the first. For one
// thread.
class LineReader {
 public:
  // InvalidArgument for UTF-16 and for what is not a regular file; else as OpenFile. `progress` may be null.
  static absl::StatusOr<LineReader> Open(const std::string& path, uint64_t begin, uint64_t end, UnitProgress progress);

  // False at the end. The line is valid until the next call. InvalidArgument for a line beyond kMaxLineBytes.
  absl::StatusOr<bool> Next(absl::string_view* line);

  const std::string& path() const { return path_; }
  uint64_t line() const { return lines_ - 1; }  // number of the last line, from 0 at the first one of the range
  uint64_t lines() const { return lines_; }     // read so far
  uint64_t line_offset() const { return line_offset_; }  // of the last line in the file, bytes
  uint64_t next_offset() const { return buffer_offset_ + position_; }

  // "<path>:<number in the file, from 1>" of a line of this range. Reads what stands before the range, so only for
  // messages.
  std::string Place(uint64_t line) const;
  // BadData at the last line.
  absl::Status Bad(absl::string_view reason, absl::string_view remedy) const;

 private:
  LineReader() = default;
  absl::Status Fill();
  absl::Status SkipToLineStart();
  absl::Status SkipByteOrderMark();

  std::string path_;
  UniqueFd fd_;
  UnitProgress progress_;
  uint64_t begin_ = 0;
  uint64_t end_ = 0;
  std::string buffer_;
  uint64_t buffer_offset_ = 0;  // of buffer_[0] in the file
  size_t position_ = 0;         // of the next line in buffer_
  bool at_eof_ = false;
  uint64_t lines_ = 0;
  uint64_t line_offset_ = 0;
};

}  // namespace stoker::ingest
