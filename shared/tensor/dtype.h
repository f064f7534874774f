// SPDX-License-Identifier: Apache-2.0
// Element types. stoker::v1::DType is the one enumeration; this gives its sizes and names.
#pragma once

#include <cstddef>
#include "absl/strings/string_view.h"

#include "absl/status/statusor.h"
#include "stoker/v1/recipe.pb.h"

namespace stoker::tensor {

using v1::DType;

// Bytes of an element; 0 for DTYPE_UNSPECIFIED and values that this version does not know.
size_t DTypeSize(DType dtype);

// Names as the command line spells them: "f32", "bf16", "u8". "?" for unknown ones.
absl::string_view DTypeName(DType dtype);
absl::StatusOr<DType> ParseDType(absl::string_view name);

// Names as safetensors spells them: "F32", "BF16", "U8".
absl::string_view SafetensorsName(DType dtype);
absl::StatusOr<DType> ParseSafetensorsName(absl::string_view name);

}  // namespace stoker::tensor
