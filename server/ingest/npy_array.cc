// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/npy_array.h"

#include <byteswap.h>
#include <string.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

constexpr absl::string_view kZipMagic = "PK";
constexpr absl::string_view kSuffix = ".npy";

template <typename T, bool kSwap>
T Load(const char* element) {
  T value;
  if constexpr (!kSwap || sizeof(T) == 1) {
    memcpy(&value, element, sizeof(T));
  } else {
    char bytes[sizeof(T)];
    std::reverse_copy(element, element + sizeof(T), bytes);
    memcpy(&value, bytes, sizeof(T));
  }
  return value;
}

template <typename T, bool kSwap>
double DecodeAs(const char* element) {
  return static_cast<double>(Load<T, kSwap>(element));
}

template <bool kSwap>
double DecodeHalf(const char* element) {
  const auto bits = Load<uint16_t, kSwap>(element);
  const int exponent = bits >> 10 & 0x1F;
  const int fraction = bits & 0x3FF;
  double value;
  if (exponent == 0x1F) {
    value = fraction != 0 ? std::nan("") : HUGE_VAL;
  } else {
    value = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(fraction + 0x400, exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -value : value;
}

double DecodeBool(const char* element) { return *element != 0; }

template <bool kSwap>
Decoder ChooseDecoder(char kind, uint64_t bytes) {
  if (kind == 'f')
    return bytes == 2 ? DecodeHalf<kSwap> : bytes == 4 ? DecodeAs<float, kSwap> : DecodeAs<double, kSwap>;
  if (kind == 'i') {
    return bytes == 1   ? DecodeAs<int8_t, kSwap>
           : bytes == 2 ? DecodeAs<int16_t, kSwap>
           : bytes == 4 ? DecodeAs<int32_t, kSwap>
                        : DecodeAs<int64_t, kSwap>;
  }
  if (kind == 'b') return DecodeBool;
  return bytes == 1   ? DecodeAs<uint8_t, kSwap>
         : bytes == 2 ? DecodeAs<uint16_t, kSwap>
         : bytes == 4 ? DecodeAs<uint32_t, kSwap>
                      : DecodeAs<uint64_t, kSwap>;
}

bool Swapped(const NpyHeader& header) { return header.big_endian != (std::endian::native == std::endian::big); }

void AppendUtf8(uint32_t code, std::string* text) {
  if (code < 0x80) {
    text->push_back(static_cast<char>(code));
    return;
  }
  const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  constexpr unsigned kLead[] = {0, 0xC0, 0xE0, 0xF0};
  text->push_back(static_cast<char>(kLead[more] | (code >> (6 * more))));
  for (int i = more - 1; i >= 0; --i) text->push_back(static_cast<char>(0x80 | (code >> (6 * i) & 0x3F)));
}

// Index in C order of the element that is `index`th in Fortran order, among dimensions after the first.
uint64_t FortranToC(uint64_t index, const std::vector<uint64_t>& shape) {
  uint64_t stride = 1;
  for (size_t d = 2; d < shape.size(); ++d) stride *= shape[d];
  uint64_t c_index = 0;
  for (size_t d = 1; d < shape.size(); ++d) {
    c_index += index % shape[d] * stride;
    index /= shape[d];
    if (d + 1 < shape.size()) stride /= shape[d + 1];
  }
  return c_index;
}

}  // namespace

Decoder DecoderOf(const NpyHeader& header) {
  return Swapped(header) ? ChooseDecoder<true>(header.kind, header.item_bytes)
                         : ChooseDecoder<false>(header.kind, header.item_bytes);
}

std::string DecodeLabel(const NpyHeader& header, const char* element) {
  std::string text;
  if (header.kind == 'S') {
    text.assign(element, header.item_bytes);
    text.resize(std::min(text.find_last_not_of('\0') + 1, text.size()));
    return text;
  }
  if (header.kind == 'U') {
    for (uint64_t i = 0; i < header.item_bytes; i += 4) {
      const uint32_t code = Swapped(header) ? Load<uint32_t, true>(element + i) : Load<uint32_t, false>(element + i);
      if (code != 0) AppendUtf8(std::min<uint32_t>(code, 0x1FFFFF), &text);  // what is beyond Unicode is refused later
    }
    return text;
  }
  const double value = DecoderOf(header)(element);
  if (header.kind == 'b') return value != 0 ? "True" : "False";
  if (header.kind != 'f') {  // through int64, which has digits that doubles lack
    const bool swapped = Swapped(header);
    if (header.item_bytes < 8) return absl::StrCat(static_cast<int64_t>(value));
    const uint64_t bits = swapped ? Load<uint64_t, true>(element) : Load<uint64_t, false>(element);
    return header.kind == 'u' ? absl::StrCat(bits) : absl::StrCat(static_cast<int64_t>(bits));
  }
  char buffer[32];
  const auto result = std::to_chars(buffer, buffer + sizeof(buffer), value);
  text.assign(buffer, result.ptr);
  if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
  return text;
}

absl::StatusOr<NpyArray> NpyArray::Open(const std::string& path, const std::string& key, absl::string_view other) {
  NpyArray array;
  array.path_ = array.place_ = path;
  STOKER_ASSIGN_OR_RETURN(array.file_, OpenRegularFile(path));
  const uint64_t size = array.file_.size_bytes;
  if (size == 0) return BadData(path, "the file is empty", "remove it from the sources");
  std::string head(std::min(size, kNpyHeaderLimitBytes), '\0');
  STOKER_RETURN_IF_ERROR(ReadExactly(array.file_.fd.get(), 0, head.data(), head.size(), path));
  if (absl::StartsWith(head, kZipMagic)) {
    STOKER_RETURN_IF_ERROR(array.OpenMember(key, other));
    return array;
  }
  if (!key.empty()) return BadData(path, "a .npy file has no keys", "leave --data-array out, or name an .npz");
  STOKER_ASSIGN_OR_RETURN(array.header_, ParseNpyHeader(head, size, path));
  array.data_offset_ = array.header_.data_offset;
  STOKER_RETURN_IF_ERROR(array.CheckWhole());
  return array;
}

absl::Status NpyArray::OpenMember(const std::string& key, absl::string_view other) {
  STOKER_ASSIGN_OR_RETURN(const std::vector<ZipMember> members,
                          ReadZipDirectory(file_.fd.get(), file_.size_bytes, path_));
  std::vector<std::string> keys;
  const ZipMember* chosen = nullptr;
  size_t candidates = 0;
  for (const ZipMember& member : members) {
    const std::string name(absl::StripSuffix(member.name, kSuffix));
    keys.push_back(name);
    if (key.empty() ? name == other : name != key) continue;
    chosen = &member;
    ++candidates;
  }
  const std::string list = absl::StrCat("the arrays are ", absl::StrJoin(keys, ", ").substr(0, 400));
  if (chosen == nullptr) {
    return BadData(path_, key.empty() ? "no array" : absl::StrCat("no array ", Quoted(key)), list);
  }
  if (key.empty() && candidates > 1)
    return BadData(path_, "several arrays", absl::StrCat("choose --data-array: ", list));
  member_ = *chosen;
  in_archive_ = true;
  place_ = absl::StrCat(path_, "[", Quoted(absl::StripSuffix(member_.name, kSuffix)), "]");
  STOKER_ASSIGN_OR_RETURN(const std::string head, ReadZipMember(file_.fd.get(), member_, kNpyHeaderLimitBytes, path_));
  STOKER_ASSIGN_OR_RETURN(header_, ParseNpyHeader(head, member_.bytes, place_));
  data_offset_ = member_.offset + header_.data_offset;
  return CheckWhole();
}

absl::Status NpyArray::CheckWhole() {
  whole_ = (in_archive_ && member_.deflated) || (header_.fortran_order && header_.shape.size() > 1);
  const uint64_t bytes = header_.rows() * header_.row_bytes();
  if (!whole_ || bytes <= kWholeArrayLimitBytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "reading ", place_, ": an array of ", bytes, " bytes that is packed or in Fortran order, the limit is ",
      kWholeArrayLimitBytes, "; save it with numpy.save, after numpy.ascontiguousarray"));
}

absl::Status NpyArray::LoadWhole() {
  if (in_archive_) {
    STOKER_ASSIGN_OR_RETURN(elements_, ReadZipMember(file_.fd.get(), member_, member_.bytes, path_));
    elements_.erase(0, header_.data_offset);
    return absl::OkStatus();
  }
  elements_.resize(header_.rows() * header_.row_bytes());
  return ReadExactly(file_.fd.get(), data_offset_, elements_.data(), elements_.size(), path_);
}

absl::Status NpyArray::ReadRows(uint64_t first, uint64_t count, std::string* out) {
  const uint64_t row_bytes = header_.row_bytes();
  out->resize(count * row_bytes);
  if (!whole_) {
    return ReadExactly(file_.fd.get(), data_offset_ + first * row_bytes, out->data(), out->size(), path_);
  }
  if (elements_.empty()) STOKER_RETURN_IF_ERROR(LoadWhole());
  if (!header_.fortran_order || header_.shape.size() == 1) {
    memcpy(out->data(), elements_.data() + first * row_bytes, out->size());
    return absl::OkStatus();
  }
  const uint64_t item = header_.item_bytes;
  const uint64_t row_items = header_.row_items();
  for (uint64_t i = 0; i < row_items; ++i) {
    const uint64_t c_index = FortranToC(i, header_.shape);
    const char* from = elements_.data() + (i * header_.rows() + first) * item;
    for (uint64_t row = 0; row < count; ++row) {
      memcpy(out->data() + (row * row_items + c_index) * item, from + row * item, item);
    }
  }
  return absl::OkStatus();
}

absl::Status NpyArray::CheckContent() const {
  if (!in_archive_ || member_.deflated || whole_) return absl::OkStatus();
  return CheckStoredMember(file_.fd.get(), member_, path_);
}

}  // namespace stoker::ingest
