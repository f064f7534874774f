// SPDX-License-Identifier: Apache-2.0
// The safetensors file format (https://github.com/huggingface/safetensors, format of version 0.3 and later), of which
// stores and `stokerctl read --out` are made.
//
//   file: | header size, u64 little-endian | header, JSON, padded with spaces | tensors' bytes without holes |
//
// What is written here begins its data at a multiple of 256 bytes. What is read is checked before a byte is believed:
// sizes, offsets, dtypes and shapes must agree with each other and with the file.
//
//   auto writer = SafetensorsWriter::Create(path, {{"made_by", "me"}}, {{"x", v1::DTYPE_F32, {2, 3}}});
//   writer->Append(absl::Span<const float>(values));   // tensors one after another, in any pieces
//   writer->Finish();                                  // now it is there under its name
//
//   auto file = SafetensorsFile::Open(path);
//   absl::StatusOr<absl::Span<const float>> x = file->Get<float>("x");
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "shared/base/posix.h"
#include "shared/base/unique_fd.h"
#include "shared/tensor/layout.h"

namespace stoker::store {

inline constexpr uint64_t kDataAlignment = 256;
inline constexpr uint64_t kHeaderLimitBytes = 64 << 20;

// The element type of a span; only for types that files of ours hold.
template <typename T>
constexpr v1::DType DTypeOf() {
  if constexpr (std::is_same_v<T, double>) return v1::DTYPE_F64;
  if constexpr (std::is_same_v<T, float>) return v1::DTYPE_F32;
  if constexpr (std::is_same_v<T, int64_t>) return v1::DTYPE_I64;
  if constexpr (std::is_same_v<T, int32_t>) return v1::DTYPE_I32;
  if constexpr (std::is_same_v<T, uint16_t>) return v1::DTYPE_U16;
  if constexpr (std::is_same_v<T, uint8_t>) return v1::DTYPE_U8;
  return v1::DTYPE_UNSPECIFIED;
}

// A file mapped read-only. It must not shrink meanwhile: open only files that are published and immutable. Const calls
// may come from many threads. Spans live as long as the file object.
class SafetensorsFile {
 public:
  // NotFound or PermissionDenied as the system says; DataLoss, naming the file and the tensor, where the bytes are not
  // what the format demands or have a dtype that this version does not know.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  const std::string& path() const { return path_; }
  uint64_t size_bytes() const { return file_.bytes().size(); }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::vector<tensor::TensorSpec>& tensors() const { return tensors_; }  // in the order of their bytes

  // nullptr when there is none of that name.
  const tensor::TensorSpec* Find(absl::string_view name) const;

  // The elements, row-major. DataLoss when there is no such tensor, it has another dtype, or is not aligned for T.
  template <typename T>
  absl::StatusOr<absl::Span<const T>> Get(absl::string_view name) const {
    auto bytes = Bytes(name, DTypeOf<T>());
    if (!bytes.ok()) return bytes.status();
    return absl::Span<const T>(reinterpret_cast<const T*>(bytes->data()), bytes->size() / sizeof(T));
  }
  // The same for types that C++ has no name for.
  absl::StatusOr<absl::Span<const uint8_t>> Bytes(absl::string_view name, v1::DType dtype) const;

  // Where the tensor's bytes begin in the file. NotFound.
  absl::StatusOr<uint64_t> FileOffset(absl::string_view name) const;

 private:
  struct Header;  // safetensors.cc
  absl::Status Parse();
  absl::Status ParseTensor(const std::string& name, const Header& entry);
  absl::Status CheckRanges();
  absl::Status Damaged(absl::string_view why) const;

  std::string path_;
  MappedFile file_;
  uint64_t data_offset_ = 0;
  std::map<std::string, std::string> metadata_;
  std::vector<tensor::TensorSpec> tensors_;
  std::vector<std::pair<uint64_t, uint64_t>> ranges_;  // [begin, end) of tensors_[i], from data_offset_
};

// Writes one file: tensors' bytes in the order declared, streamed, into a temporary file beside `path`, which takes the
// place of `path` at Finish(). Without Finish(), or after an error, nothing is left. For one thread.
class SafetensorsWriter {
 public:
  // InvalidArgument when tensors have equal names or impossible shapes; else as OpenFile.
  static absl::StatusOr<SafetensorsWriter> Create(const std::string& path,
                                                  const std::map<std::string, std::string>& metadata,
                                                  const std::vector<tensor::TensorSpec>& tensors);
  SafetensorsWriter(SafetensorsWriter&& other) noexcept;
  SafetensorsWriter& operator=(SafetensorsWriter&& other) noexcept;
  ~SafetensorsWriter();

  // ResourceExhausted when the disk is full; InvalidArgument for more bytes than were declared.
  absl::Status AppendBytes(absl::Span<const uint8_t> bytes);
  template <typename T>
  absl::Status Append(absl::Span<const T> elements) {
    return AppendBytes({reinterpret_cast<const uint8_t*>(elements.data()), elements.size() * sizeof(T)});
  }

  // Blocks until the bytes are on the disk. InvalidArgument when some are still missing. The file's size in bytes.
  absl::StatusOr<uint64_t> Finish();

 private:
  SafetensorsWriter() = default;
  void Abandon();

  std::string path_;
  std::string temporary_;
  UniqueFd fd_;
  uint64_t written_ = 0;
  uint64_t size_ = 0;
};

// Overwrites whole tensors of a file that is not published yet, and syncs it. `bytes` by tensor name; the sizes must be
// those of the tensors (else InvalidArgument). Doing it twice is doing it once.
absl::Status OverwriteTensors(const std::string& path, const std::map<std::string, absl::Span<const uint8_t>>& bytes);

}  // namespace stoker::store
