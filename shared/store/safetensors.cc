// SPDX-License-Identifier: Apache-2.0
#include "shared/store/safetensors.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"
#include "shared/tensor/dtype.h"

namespace stoker::store {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using tensor::TensorSpec;

constexpr uint64_t kSizeBytes = 8;  // of the header's size
constexpr char kMetadataKey[] = "__metadata__";

// Bytes of `dims` elements; false on overflow.
bool ShapeBytes(absl::Span<const int64_t> dims, uint64_t element, uint64_t* bytes) {
  uint64_t total = element;
  for (const int64_t dim : dims) {
    if (dim < 0 || __builtin_mul_overflow(total, static_cast<uint64_t>(dim), &total)) return false;
  }
  *bytes = total;
  return true;
}

bool GetUnsigned(const json& value, uint64_t limit, uint64_t* out) {
  if (!value.is_number_unsigned()) return false;
  *out = value.get<uint64_t>();
  return *out <= limit;
}

}  // namespace

struct SafetensorsFile::Header {
  const json& value;
};

absl::Status SafetensorsFile::Damaged(absl::string_view why) const {
  return absl::DataLossError(absl::StrCat("reading ", path_, ": ", why, "; the file is damaged: make it again"));
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  SafetensorsFile file;
  file.path_ = path;
  STOKER_ASSIGN_OR_RETURN(file.file_, MappedFile::Open(path));
  STOKER_RETURN_IF_ERROR(file.Parse());
  return file;
}

absl::Status SafetensorsFile::Parse() {
  const absl::Span<const uint8_t> bytes = file_.bytes();
  if (bytes.size() < kSizeBytes) return Damaged("no safetensors header");
  uint64_t header_bytes;
  memcpy(&header_bytes, bytes.data(), kSizeBytes);
  header_bytes = le64toh(header_bytes);
  if (header_bytes > std::min<uint64_t>(bytes.size() - kSizeBytes, kHeaderLimitBytes)) {
    return Damaged(absl::StrCat("header of ", header_bytes, " bytes in a file of ", bytes.size()));
  }
  data_offset_ = kSizeBytes + header_bytes;
  const auto* text = reinterpret_cast<const char*>(bytes.data()) + kSizeBytes;
  const json header = json::parse(text, text + header_bytes, nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) return Damaged("the header is not a JSON object");
  for (const auto& [name, value] : header.items()) {
    if (name != kMetadataKey) {
      STOKER_RETURN_IF_ERROR(ParseTensor(name, Header{value}));
      continue;
    }
    if (!value.is_object()) return Damaged("__metadata__ is not an object");
    for (const auto& [key, text_value] : value.items()) {
      if (!text_value.is_string()) return Damaged("__metadata__ has a value that is not a string");
      metadata_[key] = text_value.get<std::string>();
    }
  }
  return CheckRanges();
}

absl::Status SafetensorsFile::ParseTensor(const std::string& name, const Header& entry) {
  const json& value = entry.value;
  const auto malformed = [&](absl::string_view why) { return Damaged(absl::StrCat("tensor ", name, ": ", why)); };
  if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") || !value.contains("data_offsets") ||
      !value["dtype"].is_string() || !value["shape"].is_array() || !value["data_offsets"].is_array() ||
      value["data_offsets"].size() != 2) {
    return malformed("dtype, shape or data_offsets is missing or malformed");
  }
  TensorSpec spec;
  spec.name = name;
  const auto dtype = tensor::ParseSafetensorsName(value["dtype"].get_ref<const std::string&>());
  if (!dtype.ok())
    return malformed(absl::StrCat("dtype ", value["dtype"].get_ref<const std::string&>(), " is not known"));
  spec.dtype = *dtype;
  for (const json& dim : value["shape"]) {
    uint64_t extent;
    if (!GetUnsigned(dim, INT64_MAX, &extent)) return malformed("shape");
    spec.shape.push_back(static_cast<int64_t>(extent));
  }
  const uint64_t data_bytes = file_.bytes().size() - data_offset_;
  uint64_t begin, end, size;
  if (!GetUnsigned(value["data_offsets"][0], data_bytes, &begin) ||
      !GetUnsigned(value["data_offsets"][1], data_bytes, &end) || begin > end) {
    return malformed(absl::StrCat("data_offsets are not in the ", data_bytes, " bytes of data"));
  }
  if (!ShapeBytes(spec.shape, tensor::DTypeSize(spec.dtype), &size) || size != end - begin) {
    return malformed(absl::StrCat("shape and dtype do not make ", end - begin, " bytes"));
  }
  tensors_.push_back(std::move(spec));
  ranges_.emplace_back(begin, end);
  return absl::OkStatus();
}

// Sorts tensors by place; they must fill the data without holes.
absl::Status SafetensorsFile::CheckRanges() {
  std::vector<size_t> order(tensors_.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return ranges_[a] < ranges_[b]; });
  std::vector<TensorSpec> tensors;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  uint64_t end = 0;
  for (const size_t i : order) {
    if (ranges_[i].first != end) return Damaged(absl::StrCat("tensor ", tensors_[i].name, " does not begin at ", end));
    end = ranges_[i].second;
    tensors.push_back(std::move(tensors_[i]));
    ranges.push_back(ranges_[i]);
  }
  const uint64_t data_bytes = file_.bytes().size() - data_offset_;
  if (end != data_bytes) return Damaged(absl::StrCat("tensors end at ", end, " of ", data_bytes, " bytes of data"));
  tensors_ = std::move(tensors);
  ranges_ = std::move(ranges);
  return absl::OkStatus();
}

const TensorSpec* SafetensorsFile::Find(absl::string_view name) const {
  for (const TensorSpec& spec : tensors_) {
    if (spec.name == name) return &spec;
  }
  return nullptr;
}

absl::StatusOr<absl::Span<const uint8_t>> SafetensorsFile::Bytes(absl::string_view name, v1::DType dtype) const {
  const TensorSpec* spec = Find(name);
  if (spec == nullptr) return Damaged(absl::StrCat("no tensor ", name));
  if (spec->dtype != dtype) {
    return Damaged(absl::StrCat("tensor ", name, " is ", tensor::SafetensorsName(spec->dtype), ", not ",
                                tensor::SafetensorsName(dtype)));
  }
  const auto& [begin, end] = ranges_[static_cast<size_t>(spec - tensors_.data())];
  if ((data_offset_ + begin) % tensor::DTypeSize(dtype) != 0) {
    return Damaged(absl::StrCat("tensor ", name, " is not aligned to its elements"));
  }
  return file_.bytes().subspan(data_offset_ + begin, end - begin);
}

absl::StatusOr<uint64_t> SafetensorsFile::FileOffset(absl::string_view name) const {
  const TensorSpec* spec = Find(name);
  if (spec == nullptr) return absl::NotFoundError(absl::StrCat(path_, ": no tensor ", name));
  return data_offset_ + ranges_[static_cast<size_t>(spec - tensors_.data())].first;
}

// ---- writing ----

namespace {

absl::StatusOr<std::string> MakeHeader(const std::map<std::string, std::string>& metadata,
                                       const std::vector<TensorSpec>& tensors, uint64_t* data_bytes) {
  ordered_json header = ordered_json::object();
  if (!metadata.empty()) header[kMetadataKey] = metadata;
  uint64_t end = 0;
  for (const TensorSpec& spec : tensors) {
    uint64_t size;
    if (spec.name.empty() || spec.name == kMetadataKey || header.contains(spec.name)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor name '", spec.name, "' is empty, reserved or there twice"));
    }
    if (tensor::DTypeSize(spec.dtype) == 0 || !ShapeBytes(spec.shape, tensor::DTypeSize(spec.dtype), &size) ||
        size > uint64_t{INT64_MAX} - end) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", spec.name, ": impossible dtype or shape"));
    }
    header[spec.name] = {{"dtype", std::string(tensor::SafetensorsName(spec.dtype))},
                         {"shape", spec.shape},
                         {"data_offsets", {end, end + size}}};
    end += size;
  }
  *data_bytes = end;
  // Strings that are not UTF-8 would throw: they are replaced instead.
  std::string text = header.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  text.resize(AlignUp(kSizeBytes + text.size(), kDataAlignment) - kSizeBytes, ' ');
  if (text.size() > kHeaderLimitBytes) {
    return absl::InvalidArgumentError(absl::StrCat("safetensors header of ", text.size(), " bytes"));
  }
  const uint64_t size = htole64(text.size());
  return absl::StrCat(absl::string_view(reinterpret_cast<const char*>(&size), kSizeBytes), text);
}

}  // namespace

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::Create(const std::string& path,
                                                            const std::map<std::string, std::string>& metadata,
                                                            const std::vector<TensorSpec>& tensors) {
  uint64_t data_bytes = 0;
  const absl::StatusOr<std::string> header = MakeHeader(metadata, tensors, &data_bytes);
  if (!header.ok()) return Annotate(header.status(), absl::StrCat("writing ", path));
  SafetensorsWriter writer;
  writer.path_ = path;
  std::string temporary = absl::StrCat(path, ".tmp-XXXXXX");
  writer.fd_.reset(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!writer.fd_.valid()) return ErrnoStatus(errno, "create", temporary);
  writer.temporary_ = std::move(temporary);
  writer.size_ = header->size() + data_bytes;
  STOKER_RETURN_IF_ERROR(writer.AppendBytes({reinterpret_cast<const uint8_t*>(header->data()), header->size()}));
  return writer;
}

SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&& other) noexcept { *this = std::move(other); }

SafetensorsWriter& SafetensorsWriter::operator=(SafetensorsWriter&& other) noexcept {
  if (this == &other) return *this;
  Abandon();
  path_ = std::move(other.path_);
  temporary_ = std::exchange(other.temporary_, {});
  fd_ = std::move(other.fd_);
  written_ = other.written_;
  size_ = other.size_;
  return *this;
}

SafetensorsWriter::~SafetensorsWriter() { Abandon(); }

void SafetensorsWriter::Abandon() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
  fd_.reset();
}

absl::Status SafetensorsWriter::AppendBytes(absl::Span<const uint8_t> bytes) {
  if (bytes.size() > size_ - written_) {
    return absl::InvalidArgumentError(absl::StrCat("writing ", path_, ": more bytes than the tensors have"));
  }
  STOKER_RETURN_IF_ERROR(
      WriteAll(fd_.get(), absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()), path_));
  written_ += bytes.size();
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> SafetensorsWriter::Finish() {
  if (written_ != size_) {
    return absl::InvalidArgumentError(absl::StrCat("writing ", path_, ": ", size_ - written_, " bytes are missing"));
  }
  if (::fchmod(fd_.get(), 0644) != 0) return ErrnoStatus(errno, "chmod", temporary_);
  if (::fsync(fd_.get()) != 0) return ErrnoStatus(errno, "fsync", temporary_);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return ErrnoStatus(errno, "rename to", path_);
  temporary_.clear();
  fd_.reset();
  return size_;
}

absl::Status OverwriteTensors(const std::string& path, const std::map<std::string, absl::Span<const uint8_t>>& bytes) {
  STOKER_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(path));
  STOKER_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_WRONLY));
  for (const auto& [name, data] : bytes) {
    STOKER_ASSIGN_OR_RETURN(const uint64_t offset, file.FileOffset(name));
    if (file.Find(name)->size_bytes() != data.size()) {
      return absl::InvalidArgumentError(absl::StrCat("writing ", path, ": tensor ", name, " has another size"));
    }
    for (size_t done = 0; done < data.size();) {
      const ssize_t n = TEMP_FAILURE_RETRY(
          ::pwrite(fd.get(), data.data() + done, data.size() - done, static_cast<off_t>(offset + done)));
      if (n < 0) return ErrnoStatus(errno, "write", path);
      done += static_cast<size_t>(n);
    }
  }
  if (::fsync(fd.get()) != 0) return ErrnoStatus(errno, "fsync", path);
  return absl::OkStatus();
}

}  // namespace stoker::store
