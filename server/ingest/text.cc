// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/text.h"

#include <string.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/types/optional.h"
#include "fast_float/fast_float.h"
#include "server/ingest/file_bytes.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

constexpr size_t kReadBytes = 1 << 20;
constexpr size_t kQuotedBytes = 40;
constexpr absl::string_view kPlacePayload = "stoker/place";
constexpr absl::string_view kReasonPayload = "stoker/reason";
constexpr absl::string_view kUtf8Mark = "\xEF\xBB\xBF";

bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

}  // namespace

absl::Status BadData(absl::string_view place, absl::string_view reason, absl::string_view remedy) {
  // One line, whatever the names of columns and files are made of.
  std::string message = absl::StrCat("reading ", place, ": ", reason, "; ", remedy);
  absl::StrReplaceAll({{"\n", "\\n"}, {"\r", "\\r"}}, &message);
  absl::Status status = absl::InvalidArgumentError(message);
  status.SetPayload(kPlacePayload, absl::Cord(place));
  status.SetPayload(kReasonPayload, absl::Cord(reason));
  return status;
}

BadDataParts PartsOf(const absl::Status& status) {
  const absl::optional<absl::Cord> place = status.GetPayload(kPlacePayload), reason = status.GetPayload(kReasonPayload);
  return {std::string(place.value_or(absl::Cord())), std::string(reason.value_or(absl::Cord()))};
}

std::string Quoted(absl::string_view text) {
  const bool cut = text.size() > kQuotedBytes;
  std::string escaped = absl::CHexEscape(text.substr(0, kQuotedBytes));
  return absl::StrCat("'", escaped, cut ? "..." : "", "'");
}

bool IsUtf8(absl::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const size_t more = byte < 0x80 ? 0 : byte >> 5 == 0x6 ? 1 : byte >> 4 == 0xE ? 2 : byte >> 3 == 0x1E ? 3 : 4;
    if (more == 4 || i + more >= text.size()) return false;
    uint32_t code = more == 0 ? byte : byte & (0x3F >> more);
    for (size_t k = 1; k <= more; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if (next >> 6 != 2) return false;
      code = code << 6 | (next & 0x3F);
    }
    constexpr uint32_t kSmallest[] = {0, 0x80, 0x800, 0x10000};  // shorter spellings are not allowed
    if (code < kSmallest[more] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return false;
    i += more + 1;
  }
  return true;
}

absl::string_view Trim(absl::string_view text) {
  while (!text.empty() && IsBlank(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsBlank(text.back())) text.remove_suffix(1);
  return text;
}

const char* ParseValuePrefix(const char* begin, const char* end, double* value) {
  if (begin != end && *begin == '?') {
    *value = std::numeric_limits<double>::quiet_NaN();
    return begin + 1;
  }
  const char* start = begin != end && *begin == '+' ? begin + 1 : begin;
  if (start != begin && start != end && (*start == '-' || *start == '+')) return nullptr;
  const auto [after, error] = fast_float::from_chars(start, end, *value);
  if (error == std::errc::result_out_of_range) *value = std::copysign(std::numeric_limits<double>::infinity(), *value);
  return error == std::errc::invalid_argument ? nullptr : after;
}

bool ParseValue(absl::string_view text, double* value) {
  double parsed;
  const char* end = text.data() + text.size();
  if (text.empty() || ParseValuePrefix(text.data(), end, &parsed) != end) return false;
  *value = parsed;
  return true;
}

TextLines::TextLines(absl::string_view text) : rest_(text) { absl::ConsumePrefix(&rest_, kUtf8Mark); }

bool TextLines::Next(absl::string_view* line) {
  if (rest_.empty()) return false;
  const size_t stop = std::min(rest_.find('\n'), rest_.size());
  *line = rest_.substr(0, stop);
  if (absl::EndsWith(*line, "\r")) line->remove_suffix(1);
  rest_.remove_prefix(std::min(stop + 1, rest_.size()));
  ++line_;
  return true;
}

std::vector<absl::string_view> Fields(absl::string_view line) {
  return absl::StrSplit(line, absl::ByAnyChar(" \t\r\f\v"), absl::SkipEmpty());
}

absl::StatusOr<LineReader> LineReader::Open(const std::string& path, uint64_t begin, uint64_t end,
                                            UnitProgress progress) {
  LineReader reader;
  STOKER_ASSIGN_OR_RETURN(OpenSource source, OpenRegularFile(path));
  reader.fd_ = std::move(source.fd);
  reader.path_ = path;
  reader.progress_ = std::move(progress);
  reader.begin_ = begin;
  reader.end_ = end;
  if (begin <= kUtf8Mark.size()) {  // a first line may start behind the mark
    STOKER_RETURN_IF_ERROR(reader.SkipByteOrderMark());
    if (begin == 0 || reader.position_ > 0) return reader;
    reader.position_ = begin - 1;
  } else {
    reader.buffer_offset_ = begin - 1;  // the byte before tells whether a line starts at `begin`
  }
  STOKER_RETURN_IF_ERROR(reader.SkipToLineStart());
  return reader;
}

absl::Status LineReader::SkipByteOrderMark() {
  STOKER_RETURN_IF_ERROR(Fill());
  if (absl::StartsWith(buffer_, "\xFF\xFE") || absl::StartsWith(buffer_, "\xFE\xFF")) {
    return BadData(path_, "the text is UTF-16", "save it as UTF-8");
  }
  if (absl::StartsWith(buffer_, kUtf8Mark)) position_ = kUtf8Mark.size();
  return absl::OkStatus();
}

absl::Status LineReader::SkipToLineStart() {
  while (true) {
    const char* from = buffer_.data() + position_;
    const void* newline = position_ < buffer_.size() ? memchr(from, '\n', buffer_.size() - position_) : nullptr;
    if (newline != nullptr) {
      position_ = static_cast<size_t>(static_cast<const char*>(newline) - buffer_.data()) + 1;
      return absl::OkStatus();
    }
    position_ = buffer_.size();
    if (at_eof_ || next_offset() >= end_) return absl::OkStatus();
    STOKER_RETURN_IF_ERROR(Fill());
  }
}

// Drops what is read and appends about kReadBytes, more when a line is longer than the buffer.
absl::Status LineReader::Fill() {
  buffer_.erase(0, position_);
  buffer_offset_ += position_;
  position_ = 0;
  const size_t have = buffer_.size();
  const size_t want = std::max(kReadBytes, have);
  buffer_.resize(have + want);
  const absl::StatusOr<size_t> got = ReadSome(fd_.get(), buffer_offset_ + have, buffer_.data() + have, want, path_);
  buffer_.resize(have + (got.ok() ? *got : 0));
  if (!got.ok()) return got.status();
  at_eof_ = *got < want;
  const uint64_t read_to = std::min(buffer_offset_ + buffer_.size(), end_);
  if (progress_ && read_to > begin_) progress_(read_to - begin_);
  return absl::OkStatus();
}

absl::StatusOr<bool> LineReader::Next(absl::string_view* line) {
  if (next_offset() >= end_) return false;
  size_t searched = position_;
  while (true) {
    const void* newline =
        searched < buffer_.size() ? memchr(buffer_.data() + searched, '\n', buffer_.size() - searched) : nullptr;
    if (newline == nullptr && !at_eof_) {
      const size_t have = buffer_.size() - position_;
      if (have > kMaxLineBytes) {
        ++lines_;
        return Bad(absl::StrCat("a line longer than ", kMaxLineBytes >> 20, " MiB"), "put each series on its own line");
      }
      STOKER_RETURN_IF_ERROR(Fill());
      searched = have;
      continue;
    }
    if (newline == nullptr && position_ == buffer_.size()) return false;
    const size_t stop =
        newline == nullptr ? buffer_.size() : static_cast<size_t>(static_cast<const char*>(newline) - buffer_.data());
    *line = absl::string_view(buffer_).substr(position_, stop - position_);
    if (absl::EndsWith(*line, "\r")) line->remove_suffix(1);
    line_offset_ = next_offset();
    position_ = std::min(stop + 1, buffer_.size());
    ++lines_;
    return true;
  }
}

std::string LineReader::Place(uint64_t line) const {
  uint64_t before = 0;
  uint64_t offset = 0;
  bool starts_line = true;  // whether a line starts at begin_
  std::string chunk(kReadBytes, '\0');
  while (offset < begin_) {
    const size_t want = static_cast<size_t>(std::min<uint64_t>(kReadBytes, begin_ - offset));
    const absl::StatusOr<size_t> got = ReadSome(fd_.get(), offset, chunk.data(), want, path_);
    if (!got.ok() || *got == 0) break;
    before += static_cast<uint64_t>(std::count(chunk.begin(), chunk.begin() + static_cast<ptrdiff_t>(*got), '\n'));
    starts_line = chunk[*got - 1] == '\n';
    offset += *got;
  }
  // A line that starts before the range and ends in it belongs to the unit before.
  return absl::StrCat(path_, ":", before + line + (starts_line ? 1 : 2));
}

absl::Status LineReader::Bad(absl::string_view reason, absl::string_view remedy) const {
  return BadData(Place(lines_ == 0 ? 0 : line()), reason, remedy);
}

}  // namespace stoker::ingest
