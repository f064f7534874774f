// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/ts_reader.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "server/ingest/shard_builder.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

constexpr uint64_t kHeaderLimitBytes = 64 << 20;
constexpr absl::string_view kValueRemedy = "write numbers, and NaN or ? where one is missing";

struct TsHeader {
  bool timestamps = false;
  std::optional<bool> univariate;
  bool class_label = true;
  bool target_label = false;
  std::vector<std::string> classes;
  uint64_t data_offset = 0;  // of the line after @data

  bool has_label() const { return class_label || target_label; }
};

bool IsComment(absl::string_view line) { return line.empty() || line[0] == '#' || line[0] == '%'; }

absl::Status ParseFlag(const LineReader& reader, absl::string_view tag, absl::string_view value, bool* flag) {
  const std::string lower = absl::AsciiStrToLower(value);
  if (lower != "true" && lower != "false") {
    return reader.Bad(absl::StrCat("@", tag, " is ", Quoted(value)), "write true or false");
  }
  *flag = lower == "true";
  return absl::OkStatus();
}

// One "@tag value…" line.
absl::Status ParseTag(const LineReader& reader, absl::string_view line, TsHeader* header) {
  std::vector<absl::string_view> words = absl::StrSplit(line.substr(1), absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
  if (words.empty()) return reader.Bad("an @ without a tag", "name the tag");
  const std::string tag = absl::AsciiStrToLower(words[0]);
  const absl::string_view value = words.size() > 1 ? words[1] : absl::string_view();
  if (tag == "timestamps") return ParseFlag(reader, tag, value, &header->timestamps);
  if (tag == "univariate") {
    header->univariate.emplace();
    return ParseFlag(reader, tag, value, &*header->univariate);
  }
  if (tag == "targetlabel") {
    STOKER_RETURN_IF_ERROR(ParseFlag(reader, tag, value, &header->target_label));
    if (header->target_label) header->class_label = false;
  }
  if (tag == "classlabel") {
    STOKER_RETURN_IF_ERROR(ParseFlag(reader, tag, value, &header->class_label));
    header->classes.clear();
    for (size_t i = 2; i < words.size(); ++i) header->classes.emplace_back(words[i]);
    if (header->class_label && header->classes.empty()) {
      return reader.Bad("@classLabel true lists no class", "list the labels after it, or write @classLabel false");
    }
    for (const std::string& label : header->classes) {
      if (!IsUtf8(label)) return reader.Bad(absl::StrCat("class ", Quoted(label), " is not UTF-8"), "save it as UTF-8");
    }
    if (header->class_label) header->target_label = false;
  }
  return absl::OkStatus();
}

absl::StatusOr<TsHeader> ReadHeader(const std::string& path) {
  STOKER_ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(path, 0, kHeaderLimitBytes, nullptr));
  TsHeader header;
  absl::string_view line;
  while (true) {
    STOKER_ASSIGN_OR_RETURN(const bool more, reader.Next(&line));
    if (!more) return BadData(path, "no @data line: not a .ts file", "check the file, or name its --format");
    line = Trim(line);
    if (IsComment(line)) continue;
    if (line[0] != '@') {
      return reader.Bad(absl::StrCat("expected a comment, a tag or @data, found ", Quoted(line)),
                        "check that this is a .ts file, or name its --format");
    }
    if (absl::AsciiStrToLower(line) == "@data") break;
    STOKER_RETURN_IF_ERROR(ParseTag(reader, line, &header));
  }
  header.data_offset = reader.next_offset();
  return header;
}

// The cases of a unit, one line at a time.
class CaseReader {
 public:
  CaseReader(const Unit& unit, const TsHeader& header, const LineReader& reader)
      : header_(header),
        reader_(reader),
        known_(header.classes.begin(), header.classes.end()),
        target_(unit.options().target()) {
    if (target_ == v1::IngestOptions::TARGET_UNSPECIFIED) {
      target_ = header.target_label  ? v1::IngestOptions::TARGET_VALUE
                : header.class_label ? v1::IngestOptions::TARGET_CLASS
                                     : v1::IngestOptions::TARGET_NONE;
    }
  }

  v1::IngestOptions::Target target() const { return target_; }

  absl::Status Read(absl::string_view line, ShardBuilder* builder);

 private:
  absl::Status ParseLabel(absl::string_view label, Series* series);
  absl::Status ParseChannel(const char** at, const char* end, uint64_t channel);
  absl::Status ParsePoint(const char** at, const char* end, uint64_t channel, uint64_t point, double* value);
  absl::Status CheckChannels(uint64_t channels, ShardBuilder* builder);
  absl::Status BadPoint(absl::string_view what, uint64_t channel, uint64_t point) const;

  const TsHeader& header_;
  const LineReader& reader_;
  const absl::flat_hash_set<std::string> known_;  // labels that the header lists
  v1::IngestOptions::Target target_;
  uint64_t channels_ = 0;  // of the first case
  std::vector<double> values_;
  double target_value_ = 0;
};

absl::Status CaseReader::BadPoint(absl::string_view what, uint64_t channel, uint64_t point) const {
  return reader_.Bad(absl::StrCat("channel ", channel, ", point ", point, ": ", what), kValueRemedy);
}

absl::Status CaseReader::Read(absl::string_view line, ShardBuilder* builder) {
  Series series;
  series.line = reader_.line();
  if (header_.has_label()) {
    const size_t colon = line.rfind(':');
    const size_t tuple = header_.timestamps ? line.rfind(')') : absl::string_view::npos;
    if (colon == absl::string_view::npos || (tuple != absl::string_view::npos && tuple > colon)) {
      return reader_.Bad("no label after the last ':'", "add it, or say @classLabel false");
    }
    STOKER_RETURN_IF_ERROR(ParseLabel(Trim(line.substr(colon + 1)), &series));
    line = line.substr(0, colon);
  }
  values_.clear();
  const char* at = line.data();
  const char* end = line.data() + line.size();
  uint64_t channel = 0;
  while (true) {
    const size_t before = values_.size();
    STOKER_RETURN_IF_ERROR(ParseChannel(&at, end, channel));
    const uint64_t length = values_.size() - before;
    if (channel == 0) series.length = length;
    if (length != series.length) {
      return reader_.Bad(absl::StrCat("channel ", channel, " has ", length, " points, channel 0 has ", series.length),
                         "give all channels of a case the same length");
    }
    ++channel;
    if (at == end) break;
    ++at;  // the ':'
  }
  STOKER_RETURN_IF_ERROR(CheckChannels(channel, builder));
  series.values = values_;
  return builder->Add(series);
}

absl::Status CaseReader::ParseLabel(absl::string_view label, Series* series) {
  if (target_ == v1::IngestOptions::TARGET_CLASS) {
    const std::vector<std::string>& classes = header_.classes;
    if (header_.class_label && !classes.empty() && !known_.contains(label)) {
      return reader_.Bad(absl::StrCat("unknown label ", Quoted(label)),
                         absl::StrCat("@classLabel lists ", absl::StrJoin(classes, " ").substr(0, 200)));
    }
    series->label = label;
  }
  if (target_ == v1::IngestOptions::TARGET_VALUE) {
    if (!ParseValue(label, &target_value_) || !std::isfinite(target_value_)) {
      return reader_.Bad(absl::StrCat("target ", Quoted(label), " is not a finite number"),
                         "correct it, or choose --target class or none");
    }
    series->target = absl::MakeConstSpan(&target_value_, 1);
  }
  return absl::OkStatus();
}

// Points up to ':' or the end, where *at is left.
absl::Status CaseReader::ParseChannel(const char** at, const char* end, uint64_t channel) {
  for (uint64_t point = 0;; ++point) {
    double value;
    STOKER_RETURN_IF_ERROR(ParsePoint(at, end, channel, point, &value));
    values_.push_back(value);
    if (*at == end || **at == ':') return absl::OkStatus();
    ++*at;  // the ','
  }
}

// One value, or "(time,value)", and the blanks around it. Leaves *at on ',' or ':' or the end.
absl::Status CaseReader::ParsePoint(const char** at, const char* end, uint64_t channel, uint64_t point, double* value) {
  const auto skip_blanks = [&] {
    while (*at != end && (**at == ' ' || **at == '\t')) ++*at;
  };
  skip_blanks();
  const char* start = *at;
  const char* after = nullptr;
  if (header_.timestamps) {
    const char* close = std::find(start, end, ')');
    if (start == end || *start != '(' || close == end) return BadPoint("expected (time,value)", channel, point);
    const absl::string_view tuple(start + 1, static_cast<size_t>(close - start - 1));
    const size_t comma = tuple.rfind(',');
    if (comma != absl::string_view::npos && ParseValue(Trim(tuple.substr(comma + 1)), value)) after = close + 1;
  } else {
    after = ParseValuePrefix(start, end, value);
  }
  if (after != nullptr) *at = after;
  skip_blanks();
  if (after != nullptr && (*at == end || **at == ',' || **at == ':')) return absl::OkStatus();
  const char* stop = header_.timestamps ? std::find(start, end, ')')
                                        : std::find_if(start, end, [](char c) { return c == ',' || c == ':'; });
  const absl::string_view text = Trim(absl::string_view(start, static_cast<size_t>(stop - start)));
  return BadPoint(text.empty() ? "no value" : absl::StrCat(Quoted(text), " is not a number"), channel, point);
}

absl::Status CaseReader::CheckChannels(uint64_t channels, ShardBuilder* builder) {
  if (channels_ == channels) return absl::OkStatus();
  if (channels_ != 0) {
    return reader_.Bad(absl::StrCat(channels, " channels, the cases before have ", channels_),
                       "give all cases the same channels");
  }
  if (header_.univariate.value_or(false) && channels != 1) {
    return reader_.Bad(absl::StrCat(channels, " channels, the header says @univariate true"),
                       "correct the header or the line");
  }
  channels_ = channels;
  std::vector<std::string> names;
  for (uint64_t c = 0; c < channels; ++c) names.push_back(absl::StrCat(c));
  return builder->SetChannels(names, reader_.path());
}

}  // namespace

absl::StatusOr<std::string> ReadTsUnit(const Unit& unit, const UnitProgress& progress) {
  STOKER_ASSIGN_OR_RETURN(const TsHeader header, ReadHeader(unit.source()));
  STOKER_ASSIGN_OR_RETURN(LineReader reader,
                          LineReader::Open(unit.source(), unit.begin_bytes(), unit.end_bytes(), progress));
  CaseReader cases(unit, header, reader);
  if (cases.target() != v1::IngestOptions::TARGET_NONE && !header.has_label()) {
    return BadData(unit.source(), "the header says that there are no labels", "choose --target none");
  }
  ShardBuilder builder(unit, {.by_line = true, .target = cases.target(), .place = [&reader](uint64_t line) {
                                return reader.Place(line);
                              }});
  if (cases.target() == v1::IngestOptions::TARGET_CLASS) builder.summary().declared = header.classes;
  absl::string_view line;
  while (true) {
    STOKER_ASSIGN_OR_RETURN(const bool more, reader.Next(&line));
    if (!more) break;
    if (reader.line_offset() < header.data_offset) continue;
    line = Trim(line);
    if (!IsComment(line)) STOKER_RETURN_IF_ERROR(cases.Read(line, &builder));
  }
  builder.summary().lines = reader.lines();
  return builder.Finish();
}

}  // namespace stoker::ingest
