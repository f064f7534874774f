// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/csv_table.h"

#include <algorithm>

#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

// Whether a quotation that starts in `line` goes on after it; if one was open before, the opposite.
bool HasOpenQuotation(absl::string_view line) { return std::count(line.begin(), line.end(), '"') % 2 != 0; }

}  // namespace

absl::Status CsvRecords::Bad(absl::string_view reason, absl::string_view remedy) const {
  return BadData(reader_.Place(line_), reason, remedy);
}

absl::StatusOr<bool> CsvRecords::Next(std::vector<absl::string_view>* fields) {
  fields->clear();
  absl::string_view line;
  do {
    STOKER_ASSIGN_OR_RETURN(const bool more, reader_.Next(&line));
    if (!more) return false;
  } while (Trim(line).empty());
  line_ = reader_.line();
  record_.assign(line.data(), line.size());
  bool open = HasOpenQuotation(line);
  while (open) {
    STOKER_ASSIGN_OR_RETURN(const bool more, reader_.Next(&line));
    if (!more || record_.size() + line.size() > kMaxLineBytes)
      return Bad("a quotation that does not end", "close it with \"");
    record_.push_back('\n');
    record_.append(line.data(), line.size());
    open = !HasOpenQuotation(line);
  }
  unquoted_.clear();
  unquoted_.reserve(record_.size());
  for (size_t at = 0;; ++at) {
    absl::string_view field;
    const size_t start = record_.find_first_not_of(" \t", at);
    if (start != std::string::npos && record_[start] == '"') {
      at = start;
      STOKER_RETURN_IF_ERROR(TakeQuoted(&at, &field));
    } else {
      const size_t stop = std::min(record_.find(',', at), record_.size());
      field = Trim(absl::string_view(record_).substr(at, stop - at));
      at = stop;
    }
    fields->push_back(field);
    if (at >= record_.size()) return true;
  }
}

// From the opening quotation mark to the comma after the closing one, or the end.
absl::Status CsvRecords::TakeQuoted(size_t* at, absl::string_view* field) {
  const size_t begin = unquoted_.size();
  size_t i = *at + 1;
  while (i < record_.size() && (record_[i] != '"' || (i + 1 < record_.size() && record_[i + 1] == '"'))) {
    if (record_[i] == '"') ++i;
    unquoted_.push_back(record_[i++]);
  }
  *at = std::min(record_.find(',', i), record_.size());
  if (i >= record_.size() || !Trim(absl::string_view(record_).substr(i + 1, *at - i - 1)).empty()) {
    return Bad("text after a closing quotation mark", "double the quotation marks inside a field");
  }
  *field = absl::string_view(unquoted_).substr(begin);
  return absl::OkStatus();
}

}  // namespace stoker::ingest
