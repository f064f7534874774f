// SPDX-License-Identifier: Apache-2.0
// Lines on standard error, one an event: for the journal with its priority in front, for a person with the time.
//
//   log::Info("session opened", {{"session", 3}, {"dataset", "pumps"}});
//   2026-01-31 12:00:00.000 info session opened session=3 dataset=pumps
// Any thread. Only the daemon logs; libraries return errors.
#pragma once

#include <initializer_list>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace stoker::log {

enum class Level { kDebug, kInfo, kWarning, kError };

struct Field {
  absl::string_view key;
  std::string value;
  template <typename T>
  Field(absl::string_view k, const T& v) : key(k), value(absl::StrCat(v)) {}
};

void SetLevel(Level level);  // what is below is dropped; info at first

void Write(Level level, absl::string_view message, std::initializer_list<Field> fields);
inline void Debug(absl::string_view m, std::initializer_list<Field> f = {}) { Write(Level::kDebug, m, f); }
inline void Info(absl::string_view m, std::initializer_list<Field> f = {}) { Write(Level::kInfo, m, f); }
inline void Warning(absl::string_view m, std::initializer_list<Field> f = {}) { Write(Level::kWarning, m, f); }
inline void Error(absl::string_view m, std::initializer_list<Field> f = {}) { Write(Level::kError, m, f); }

}  // namespace stoker::log
