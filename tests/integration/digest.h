// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <zlib.h>

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "stoker/batch.h"

namespace stoker::testing {

// A checksum over names, types, shapes and bytes of all tensors.
inline uint32_t DigestOf(const Batch& batch) {
  uLong crc = crc32(0, nullptr, 0);
  for (const RawTensor& tensor : batch.tensors()) {
    const std::string head =
        absl::StrCat(tensor.name, " ", static_cast<int>(tensor.dtype), " ", absl::StrJoin(tensor.shape, ","));
    crc = crc32(crc, reinterpret_cast<const Bytef*>(head.data()), static_cast<uInt>(head.size()));
    crc = crc32(crc, tensor.bytes.data(), static_cast<uInt>(tensor.bytes.size()));
  }
  return static_cast<uint32_t>(crc);
}

}  // namespace stoker::testing
