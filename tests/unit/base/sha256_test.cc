// SPDX-License-Identifier: Apache-2.0
#include "shared/base/sha256.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/string_view.h"

namespace stoker {
namespace {

// Vectors of FIPS 180-4's examples and of NIST's "Secure Hashing" page.
constexpr char kEmpty[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr char kAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr char kTwoBlocks[] = "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1";
constexpr char kMillionA[] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

TEST(Sha256, KnownTexts_GiveThePublishedDigests) {
  EXPECT_EQ(Sha256Hex(""), kEmpty);
  EXPECT_EQ(Sha256Hex("abc"), kAbc);
  EXPECT_EQ(Sha256Hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"), kTwoBlocks);
  EXPECT_EQ(Sha256Hex(std::string(1000000, 'a')), kMillionA);
}

TEST(Sha256, PiecesOfAnyLength_GiveTheDigestOfTheWhole) {
  for (const size_t piece : {1, 3, 63, 64, 65, 1000}) {
    const std::string text(10000, 'x');
    Sha256 hash;
    for (size_t at = 0; at < text.size(); at += piece) hash.Update(absl::string_view(text).substr(at, piece));
    EXPECT_EQ(hash.HexDigest(), Sha256Hex(text)) << piece;
  }
}

TEST(Sha256, TextWithZeroBytes_IsNotCutShort) {
  EXPECT_NE(Sha256Hex(absl::string_view("a\0b", 3)), Sha256Hex(absl::string_view("a\0c", 3)));
}

TEST(ShortDigest, AnyText_IsTheFirst16Digits) { EXPECT_EQ(ShortDigest("abc"), std::string(kAbc).substr(0, 16)); }

}  // namespace
}  // namespace stoker
