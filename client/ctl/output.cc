// SPDX-License-Identifier: Apache-2.0
#include "client/ctl/output.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "shared/base/size.h"

namespace stoker::ctl {
namespace {

constexpr absl::Duration kTerminalInterval = absl::Milliseconds(100);
constexpr absl::Duration kPipeInterval = absl::Seconds(5);
constexpr char kClearLine[] = "\r\033[K";

// Fields of the requests that options become.
constexpr absl::string_view kOptionFields[] = {
    "recipe",           "plan",          "options",  "ingest options", "position",
    "interval_seconds", "data set name", "prefetch", "epochs",         "address"};

bool NamesAnOption(absl::string_view message) {
  for (const absl::string_view field : kOptionFields) {
    if (!absl::StartsWith(message, field)) continue;
    const absl::string_view rest = message.substr(field.size());
    if (rest.empty() || rest[0] == '.' || rest[0] == ':' || rest[0] == ' ') return true;
  }
  return false;
}

size_t Width(absl::string_view text) {  // in characters, of UTF-8
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

ExitCode ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kDone;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return NamesAnOption(status.message()) ? kUsage : kBadData;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kCancelled:
      return kNoDaemon;
    case absl::StatusCode::kDataLoss:
      return kBadData;
    case absl::StatusCode::kResourceExhausted:
      return kNotEnough;
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAlreadyExists:
      return kNotFoundOrNotAllowed;
    default:
      return kOurBug;
  }
}

ExitCode Fail(const Output& output, absl::string_view what, const absl::Status& status) {
  const std::string message = absl::StrReplaceAll(absl::StripAsciiWhitespace(status.message()), {{"\n", " | "}});
  output.err << "stokerctl: " << what << ": " << message << std::endl;
  return ExitCodeOf(status);
}

void PrintJson(const Output& output, const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  // It fails only for what no message of ours has: Any, or text that is not UTF-8.
  output.out << (status.ok() ? json : absl::StrCat("{\"error\": \"", std::string(status.message()), "\"}\n"));
  output.out.flush();
}

void Table::Print(std::ostream& out) const {
  std::vector<size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  for (const auto& row : rows_) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - Width(row[i]), ' ');
      const bool number = !row[i].empty() && absl::ascii_isdigit(static_cast<unsigned char>(row[i][0]));
      absl::StrAppend(&line, i == 0 ? "" : "  ", number ? padding : "", row[i], number ? "" : padding);
    }
    out << absl::StripTrailingAsciiWhitespace(line) << "\n";
  }
}

void PrintFields(std::ostream& out, const std::vector<std::pair<std::string, std::string>>& fields) {
  size_t width = 0;
  for (const auto& [name, value] : fields) width = std::max(width, Width(name));
  for (const auto& [name, value] : fields) {
    out << name << std::string(width - Width(name) + 2, ' ') << value << "\n";
  }
}

std::string FormatCount(uint64_t count) {
  std::string digits = absl::StrCat(count);
  for (size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, 1, ' ');
  return digits;
}

std::string FormatSeconds(double seconds) {
  if (!(seconds >= 0)) return "?";
  if (seconds < 1) return absl::StrFormat("%.0f ms", seconds * 1e3);
  if (seconds < 60) return absl::StrFormat("%.1f s", seconds);
  const auto whole = static_cast<int64_t>(std::lround(std::min(seconds, 1e9)));
  if (whole < 3600) return absl::StrFormat("%d min %02d s", whole / 60, whole % 60);
  return absl::StrFormat("%d h %02d min", whole / 3600, whole / 60 % 60);
}

std::string FormatRate(double bytes_per_second) {
  return absl::StrCat(FormatSize(static_cast<uint64_t>(std::max(bytes_per_second, 0.0))), "/s");
}

Progress::Progress(const Output& output, std::string what)
    : output_(output), what_(std::move(what)), started_(absl::Now()) {}

Progress::~Progress() {
  if (on_screen_) output_.err << kClearLine << std::flush;
}

void Progress::Update(uint64_t done, uint64_t total, absl::string_view more, absl::Time now) {
  const absl::Duration interval = output_.err_is_terminal ? kTerminalInterval : kPipeInterval;
  // The first line of a pipe comes after an interval too: what is quick needs none.
  const absl::Time before = output_.err_is_terminal ? shown_ : std::max(shown_, started_);
  if (output_.quiet || now - before < interval) return;
  shown_ = now;
  const std::string line = Line(done, total, more, now - started_);
  if (output_.err_is_terminal) {
    output_.err << kClearLine << line << std::flush;
    on_screen_ = true;
  } else {
    output_.err << line << std::endl;
  }
}

std::string Progress::Line(uint64_t done, uint64_t total, absl::string_view more, absl::Duration elapsed) const {
  const double seconds = std::max(absl::ToDoubleSeconds(elapsed), 1e-3);
  const double rate = static_cast<double>(done) / seconds;
  std::string line = absl::StrCat(what_, "  ", FormatSize(done));
  if (total > 0) {
    absl::StrAppend(&line, " of ", FormatSize(total),
                    absl::StrFormat(" (%.0f %%)", 100.0 * static_cast<double>(done) / static_cast<double>(total)));
  }
  absl::StrAppend(&line, "  ", FormatRate(rate));
  if (total > done && rate > 0) {
    absl::StrAppend(&line, "  ", FormatSeconds(static_cast<double>(total - done) / rate), " left");
  }
  return more.empty() ? line : absl::StrCat(line, "  ", more);
}

}  // namespace stoker::ctl
