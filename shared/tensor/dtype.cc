// SPDX-License-Identifier: Apache-2.0
#include "shared/tensor/dtype.h"

#include "absl/strings/str_cat.h"

namespace stoker::tensor {
namespace {

struct Entry {
  DType dtype;
  size_t size;
  const char* name;
  const char* safetensors;
};
constexpr Entry kEntries[] = {{v1::DTYPE_F32, 4, "f32", "F32"},    {v1::DTYPE_F16, 2, "f16", "F16"},
                              {v1::DTYPE_BF16, 2, "bf16", "BF16"}, {v1::DTYPE_U8, 1, "u8", "U8"},
                              {v1::DTYPE_U16, 2, "u16", "U16"},    {v1::DTYPE_F64, 8, "f64", "F64"},
                              {v1::DTYPE_I64, 8, "i64", "I64"},    {v1::DTYPE_I32, 4, "i32", "I32"}};

const Entry* Find(DType dtype) {
  for (const Entry& entry : kEntries) {
    if (entry.dtype == dtype) return &entry;
  }
  return nullptr;
}

}  // namespace

size_t DTypeSize(DType dtype) {
  const Entry* entry = Find(dtype);
  return entry ? entry->size : 0;
}

absl::string_view DTypeName(DType dtype) {
  const Entry* entry = Find(dtype);
  return entry ? entry->name : "?";
}

absl::StatusOr<DType> ParseDType(absl::string_view name) {
  for (const Entry& entry : kEntries) {
    if (name == entry.name) return entry.dtype;
  }
  return absl::InvalidArgumentError(absl::StrCat("dtype \"", name, "\" is unknown"));
}

absl::string_view SafetensorsName(DType dtype) {
  const Entry* entry = Find(dtype);
  return entry ? entry->safetensors : "?";
}

absl::StatusOr<DType> ParseSafetensorsName(absl::string_view name) {
  for (const Entry& entry : kEntries) {
    if (name == entry.safetensors) return entry.dtype;
  }
  return absl::InvalidArgumentError(absl::StrCat("safetensors dtype \"", name, "\" is not supported"));
}

}  // namespace stoker::tensor
