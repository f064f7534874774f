// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <zlib.h>

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "stoker/batch.h"

namespace stoker::testing {

// A checksum over names, types, shapes and bytes of tensors.
class Digest {
 public:
  template <typename Shape>
  void Add(absl::string_view name, v1::DType dtype, const Shape& shape, absl::Span<const uint8_t> bytes) {
    const std::string head = absl::StrCat(name, " ", static_cast<int>(dtype), " ", absl::StrJoin(shape, ","));
    crc_ = crc32(crc_, reinterpret_cast<const Bytef*>(head.data()), static_cast<uInt>(head.size()));
    crc_ = crc32(crc_, bytes.data(), static_cast<uInt>(bytes.size()));
  }
  uint32_t value() const { return static_cast<uint32_t>(crc_); }

 private:
  uLong crc_ = crc32(0, nullptr, 0);
};

inline uint32_t DigestOf(const Batch& batch) {
  Digest digest;
  for (const RawTensor& tensor : batch.tensors()) digest.Add(tensor.name, tensor.dtype, tensor.shape, tensor.bytes);
  return digest.value();
}

}  // namespace stoker::testing
