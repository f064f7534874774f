// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/npy_header.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

constexpr absl::string_view kMagic = "\x93NUMPY";
constexpr absl::string_view kSaveAgain = "save it again with numpy.save";
constexpr size_t kMaxDimensions = 32;

// A reader of the Python dict that a header is: only what numpy writes, no nesting.
class DictParser {
 public:
  explicit DictParser(absl::string_view text) : rest_(text) {}

  // False when the text is not such a dict. Keys may come in any order.
  bool Parse() {
    if (!Take('{')) return false;
    while (!Take('}')) {
      std::string key;
      if (!TakeString(&key) || !Take(':')) return false;
      bool known = false;
      if (key == "descr") known = has_descr = TakeDescr();
      if (key == "fortran_order") known = has_order = TakeBool(&fortran_order);
      if (key == "shape") known = has_shape = TakeShape();
      if (!known) return false;
      if (!Take(',') && !Peek('}')) return false;
    }
    SkipBlanks();
    return rest_.empty() && has_descr && has_order && has_shape;
  }

  std::string descr;
  bool structured = false;  // descr is a list of fields
  bool fortran_order = false;
  std::vector<uint64_t> shape;
  bool has_descr = false, has_order = false, has_shape = false;

 private:
  void SkipBlanks() { rest_ = absl::StripLeadingAsciiWhitespace(rest_); }
  bool Peek(char c) {
    SkipBlanks();
    return !rest_.empty() && rest_.front() == c;
  }
  bool Take(char c) {
    if (!Peek(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool TakeString(std::string* text) {
    const char quote = Peek('"') ? '"' : '\'';
    if (!Take(quote)) return false;
    const size_t stop = rest_.find(quote);
    if (stop == absl::string_view::npos) return false;
    *text = std::string(rest_.substr(0, stop));
    rest_.remove_prefix(stop + 1);
    return true;
  }
  bool TakeDescr() {
    if (!Peek('[')) return TakeString(&descr);
    structured = true;  // refused by name: how it goes on does not matter
    const size_t stop = rest_.rfind(']');
    if (stop == absl::string_view::npos) return false;
    descr = std::string(rest_.substr(0, stop + 1));
    rest_.remove_prefix(stop + 1);
    return true;
  }
  bool TakeBool(bool* value) {
    SkipBlanks();
    *value = absl::ConsumePrefix(&rest_, "True");
    return *value || absl::ConsumePrefix(&rest_, "False");
  }
  bool TakeShape() {
    if (!Take('(')) return false;
    while (!Take(')')) {
      SkipBlanks();
      size_t digits = 0;
      while (digits < rest_.size() && absl::ascii_isdigit(static_cast<unsigned char>(rest_[digits]))) ++digits;
      uint64_t extent;
      if (!absl::SimpleAtoi(rest_.substr(0, digits), &extent) || shape.size() == kMaxDimensions) return false;
      rest_.remove_prefix(digits);
      absl::ConsumePrefix(&rest_, "L");  // Python 2 wrote long integers so
      shape.push_back(extent);
      if (!Take(',') && !Peek(')')) return false;
    }
    return true;
  }

  absl::string_view rest_;
};

absl::Status ParseDescr(const DictParser& dict, absl::string_view place, NpyHeader* header) {
  const auto refuse = [&](absl::string_view what, absl::string_view remedy) {
    return BadData(place, absl::StrCat("element type ", Quoted(dict.descr), " ", what), remedy);
  };
  constexpr absl::string_view kConvert = "convert it with .astype(numpy.float32) before saving";
  absl::string_view descr = dict.descr;
  if (dict.structured) return refuse("is a structure", "save one plain array for each field");
  char order = '<';
  if (!descr.empty() && absl::StrContains("<>|=", descr.substr(0, 1))) {
    order = descr.front();
    descr.remove_prefix(1);
  }
  if (absl::StartsWith(descr, "O")) return refuse("is Python objects (a pickle), which are never loaded", kConvert);
  uint64_t size = 0;
  if (descr.size() < 2 || !absl::SimpleAtoi(descr.substr(1), &size)) return refuse("is not known", kConvert);
  header->kind = descr[0];
  header->big_endian = order == '>';
  const bool power = size == 1 || size == 2 || size == 4 || size == 8;
  switch (header->kind) {
    case 'f':
      if (!power || size == 1) return refuse("is not known", kConvert);
      break;
    case 'i':
    case 'u':
      if (!power) return refuse("is not known", kConvert);
      break;
    case 'b':
      if (size != 1) return refuse("is not known", kConvert);
      break;
    case 'U':
      if (size > UINT32_MAX) return refuse("is not known", kConvert);
      size *= 4;  // counted in code points
      break;
    case 'S':
      break;
    default:
      return refuse("is not supported", kConvert);
  }
  if (size == 0) return refuse("has no size", kConvert);
  header->item_bytes = size;
  return absl::OkStatus();
}

// The header's text and where the elements begin.
absl::StatusOr<absl::string_view> HeaderText(absl::string_view head, absl::string_view place, uint64_t* data_offset) {
  if (!absl::StartsWith(head, kMagic)) return BadData(place, "not a .npy array: wrong magic", "name its --format");
  if (head.size() < 10) return BadData(place, "the header is cut off", kSaveAgain);
  const auto byte = [&](size_t i) { return uint64_t{static_cast<unsigned char>(head[i])}; };
  const uint64_t version = byte(6);
  if (version < 1 || version > 3 || byte(7) != 0) {
    return BadData(place, absl::StrCat(".npy version ", version, ".", byte(7), " is not known"), kSaveAgain);
  }
  const size_t start = version == 1 ? 10 : 12;
  if (head.size() < start) return BadData(place, "the header is cut off", kSaveAgain);
  uint64_t size = byte(8) | byte(9) << 8;
  if (version > 1) size |= byte(10) << 16 | byte(11) << 24;
  if (size > kNpyHeaderLimitBytes - start) {
    return BadData(place, absl::StrCat("a header of ", size, " bytes"), kSaveAgain);
  }
  if (size > head.size() - start) return BadData(place, "the header is cut off", kSaveAgain);
  *data_offset = start + size;
  return head.substr(start, size);
}

}  // namespace

uint64_t NpyHeader::row_items() const {
  uint64_t items = 1;
  for (size_t d = 1; d < shape.size(); ++d) items *= shape[d];
  return items;
}

absl::StatusOr<NpyHeader> ParseNpyHeader(absl::string_view head, uint64_t file_bytes, absl::string_view place) {
  NpyHeader header;
  STOKER_ASSIGN_OR_RETURN(const absl::string_view text, HeaderText(head, place, &header.data_offset));
  DictParser dict(text);
  if (!dict.Parse()) return BadData(place, absl::StrCat("malformed header ", Quoted(text)), kSaveAgain);
  STOKER_RETURN_IF_ERROR(ParseDescr(dict, place, &header));
  header.fortran_order = dict.fortran_order;
  header.shape = dict.shape;
  const std::string shape = absl::StrCat("shape (", absl::StrJoin(header.shape, ", "), ")");
  if (header.shape.empty()) return BadData(place, "a single number, not an array", "save an array [N, C, T]");
  uint64_t bytes = header.item_bytes;
  for (const uint64_t extent : header.shape) {
    if (extent == 0) return BadData(place, absl::StrCat(shape, " has no elements"), "save an array with samples");
    if (__builtin_mul_overflow(bytes, extent, &bytes)) {
      return BadData(place, absl::StrCat(shape, " is beyond any file"), kSaveAgain);
    }
  }
  const uint64_t have = file_bytes - header.data_offset;
  if (bytes != have) {
    return BadData(place, absl::StrCat(shape, " needs ", bytes, " bytes, the file has ", have), kSaveAgain);
  }
  return header;
}

}  // namespace stoker::ingest
