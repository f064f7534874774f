// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include "absl/strings/string_view.h"

namespace stoker {

// SHA-256 over pieces. Not synchronised.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void Update(absl::string_view bytes);
  std::string HexDigest();  // 64 lower-case digits; nothing may be added afterwards

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string Sha256Hex(absl::string_view bytes);

// The first 8 bytes of the SHA-256 as 16 hex digits: for names, not against an adversary.
std::string ShortDigest(absl::string_view bytes);

}  // namespace stoker
