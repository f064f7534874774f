// SPDX-License-Identifier: Apache-2.0
#include "shared/tensor/dtype.h"

#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace stoker::tensor {
namespace {

using ::stoker::testing::IsOkAndHolds;
using ::stoker::testing::StatusIs;
using ::testing::HasSubstr;

// Whether every value of the enumeration but "unspecified" is known; one added to the proto must be added here too.
TEST(DType, EveryValueOfTheProto_HasSizeAndNamesThatParse) {
  const google::protobuf::EnumDescriptor* all = v1::DType_descriptor();
  ASSERT_GT(all->value_count(), 1);
  for (int i = 0; i < all->value_count(); ++i) {
    const DType dtype = static_cast<DType>(all->value(i)->number());
    if (dtype == v1::DTYPE_UNSPECIFIED) continue;
    EXPECT_GT(DTypeSize(dtype), 0u) << all->value(i)->name();
    EXPECT_THAT(ParseDType(DTypeName(dtype)), IsOkAndHolds(dtype));
    EXPECT_THAT(ParseSafetensorsName(SafetensorsName(dtype)), IsOkAndHolds(dtype));
  }
}

TEST(DType, Sizes_AreThoseOfTheirBits) {
  EXPECT_EQ(DTypeSize(v1::DTYPE_U8), 1u);
  EXPECT_EQ(DTypeSize(v1::DTYPE_U16), 2u);
  EXPECT_EQ(DTypeSize(v1::DTYPE_F16), 2u);
  EXPECT_EQ(DTypeSize(v1::DTYPE_BF16), 2u);
  EXPECT_EQ(DTypeSize(v1::DTYPE_F32), 4u);
  EXPECT_EQ(DTypeSize(v1::DTYPE_I32), 4u);
  EXPECT_EQ(DTypeSize(v1::DTYPE_F64), 8u);
  EXPECT_EQ(DTypeSize(v1::DTYPE_I64), 8u);
}

TEST(DType, Names_AreThoseOfTheCommandLineAndOfSafetensors) {
  EXPECT_EQ(DTypeName(v1::DTYPE_BF16), "bf16");
  EXPECT_EQ(SafetensorsName(v1::DTYPE_BF16), "BF16");
  EXPECT_EQ(DTypeName(v1::DTYPE_I64), "i64");
  EXPECT_EQ(SafetensorsName(v1::DTYPE_I64), "I64");
}

TEST(DType, UnknownValue_HasSizeZeroAndNoName) {
  for (const DType dtype : {v1::DTYPE_UNSPECIFIED, static_cast<DType>(99)}) {
    EXPECT_EQ(DTypeSize(dtype), 0u);
    EXPECT_EQ(DTypeName(dtype), "?");
    EXPECT_EQ(SafetensorsName(dtype), "?");
  }
}

TEST(DType, UnknownName_IsInvalidArgumentThatQuotesIt) {
  for (const char* name : {"", "F32", "float32", "f8", "?"}) {
    EXPECT_THAT(ParseDType(name), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(name)));
  }
  for (const char* name : {"", "f32", "F8_E4M3", "BOOL", "?"}) {
    EXPECT_THAT(ParseSafetensorsName(name), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(name)));
  }
}

}  // namespace
}  // namespace stoker::tensor
