// SPDX-License-Identifier: Apache-2.0
#include "shared/base/size.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/status_matchers.h"

namespace stoker {
namespace {

using ::stoker::testing::IsOkAndHolds;
using ::stoker::testing::StatusIs;
using ::testing::HasSubstr;

TEST(ParseSize, NumberAndUnit_GivesBytes) {
  const std::vector<std::pair<const char*, uint64_t>> cases = {{"0", 0},
                                                               {"1", 1},
                                                               {"65536", 65536},
                                                               {"7B", 7},
                                                               {"64KiB", 65536},
                                                               {"64 KiB", 65536},
                                                               {" 64kib ", 65536},
                                                               {"1MiB", 1 << 20},
                                                               {"1.5GiB", 1610612736},
                                                               {"2TiB", uint64_t{2} << 40},
                                                               {"2KB", 2000},
                                                               {"3MB", 3000000},
                                                               {"2GB", 2000000000},
                                                               {"1TB", 1000000000000},
                                                               {"0.5KiB", 512},
                                                               {".5KiB", 512}};
  for (const auto& [text, bytes] : cases) EXPECT_THAT(ParseSize(text), IsOkAndHolds(bytes)) << text;
}

TEST(ParseSize, BytesBeyondADouble_AreExact) {
  EXPECT_THAT(ParseSize("9007199254740993"), IsOkAndHolds((uint64_t{1} << 53) + 1));
  EXPECT_THAT(ParseSize("9223372036854775807"), IsOkAndHolds((uint64_t{1} << 63) - 1));
  EXPECT_THAT(ParseSize("9223372036854775807B"), IsOkAndHolds((uint64_t{1} << 63) - 1));
}

TEST(ParseSize, NoSize_IsInvalidArgumentThatQuotesIt) {
  for (const std::string text : {"", " ", "KiB", "-1", "+1", "1e9", "0x10", "1.2.3", ".", "12 apples", "1 Ki B", "nan",
                                 "inf", "1K", "1,5GiB", "1KiB1"}) {
    EXPECT_THAT(ParseSize(text), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"" + text + "\""))) << text;
  }
}

TEST(ParseSize, TwoToThe63OrMore_IsInvalidArgument) {
  for (const char* text : {"9223372036854775808", "18446744073709551616", "8388608TiB", "99999999999999999999999"}) {
    EXPECT_THAT(ParseSize(text), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not a size"))) << text;
  }
}

TEST(FormatSize, Bytes_GivesTwoToFourFigures) {
  EXPECT_EQ(FormatSize(0), "0 B");
  EXPECT_EQ(FormatSize(512), "512 B");
  EXPECT_EQ(FormatSize(1023), "1023 B");
  EXPECT_EQ(FormatSize(1024), "1.00 KiB");
  EXPECT_EQ(FormatSize(1610612736), "1.50 GiB");
  EXPECT_EQ(FormatSize(uint64_t{256} << 20), "256.0 MiB");
  EXPECT_EQ(FormatSize(UINT64_MAX), "16.0 EiB");
}

TEST(AlignUp, AnyValue_GivesTheNextMultiple) {
  EXPECT_EQ(AlignUp(0, 4096), 0u);
  EXPECT_EQ(AlignUp(1, 4096), 4096u);
  EXPECT_EQ(AlignUp(4096, 4096), 4096u);
  EXPECT_EQ(AlignUp(4097, 256), 4352u);
}

}  // namespace
}  // namespace stoker
