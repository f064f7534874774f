// SPDX-License-Identifier: Apache-2.0
// Records of a CSV file, field by field.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/ingest/text.h"

namespace stoker::ingest {

class CsvRecords {
 public:
  explicit CsvRecords(LineReader reader) : reader_(std::move(reader)) {}

  // The fields of the next record, trimmed and without quotation marks; false at the end. Blank lines are skipped.
  // Valid until the next call. InvalidArgument for a quotation that does not end.
  absl::StatusOr<bool> Next(std::vector<absl::string_view>* fields);

  const LineReader& reader() const { return reader_; }
  uint64_t line() const { return line_; }  // on which the record starts, from 0
  absl::Status Bad(absl::string_view reason, absl::string_view remedy) const;

 private:
  absl::Status TakeQuoted(size_t* at, absl::string_view* field);

  LineReader reader_;
  uint64_t line_ = 0;
  std::string record_;
  std::string unquoted_;  // fields that had quotation marks; never grows beyond record_, so views into it stay valid
};

}  // namespace stoker::ingest
