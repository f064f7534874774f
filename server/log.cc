// SPDX-License-Identifier: Apache-2.0
#include "server/log.h"

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "absl/strings/escaping.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace stoker::log {
namespace {

std::atomic<Level> g_level = Level::kInfo;

std::string Prefix(Level level) {
  static const bool journal = ::getenv("JOURNAL_STREAM") != nullptr;
  constexpr const char* kNames[] = {"debug", "info", "warning", "error"};
  constexpr const char* kPriorities[] = {"<7>", "<6>", "<4>", "<3>"};  // sd-daemon(3)
  const int i = static_cast<int>(level);
  if (journal) return kPriorities[i];
  return absl::StrCat(absl::FormatTime("%Y-%m-%d %H:%M:%E3S", absl::Now(), absl::LocalTimeZone()), " ", kNames[i], " ");
}

// A value with blanks or control characters is quoted, so that a line stays a line whatever a file is called.
std::string Quote(absl::string_view value) {
  const bool plain = !value.empty() && std::all_of(value.begin(), value.end(), [](unsigned char c) {
    return c > ' ' && c != '"' && c != '=' && c != 0x7f;
  });
  return plain ? std::string(value) : absl::StrCat("\"", absl::Utf8SafeCEscape(value), "\"");
}

}  // namespace

void SetLevel(Level level) { g_level.store(level, std::memory_order_relaxed); }

void Write(Level level, absl::string_view message, std::initializer_list<Field> fields) {
  if (level < g_level.load(std::memory_order_relaxed)) return;
  std::string line = absl::StrCat(Prefix(level), message);
  for (const Field& field : fields) absl::StrAppend(&line, " ", field.key, "=", Quote(field.value));
  line += '\n';
  (void)!::write(STDERR_FILENO, line.data(), line.size());  // one call, so that lines of threads do not mix
}

}  // namespace stoker::log
