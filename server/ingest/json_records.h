// SPDX-License-Identifier: Apache-2.0
// A JSON document read as a stream, plain or gzip, and cut at the elements of an array: of the document itself, or of
// the arrays that are values of the document's object. Nothing but the element at hand is in memory.
//
//   ScanJson("a.json.gz", {}, [&](const JsonElement& e) -> absl::StatusOr<bool> { …; return true; });
//
// Only brackets, commas and strings are looked at: an element is checked by whoever parses it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace stoker::ingest {

inline constexpr uint64_t kMaxJsonElementBytes = 256 << 20;

struct JsonElement {
  absl::string_view key;  // of the array in the document's object; empty where the document is an array
  uint64_t index = 0;     // in its array, from 0
  uint64_t begin = 0;     // bytes of the unpacked document
  uint64_t end = 0;
  absl::string_view text;  // valid during the call. NaN, Infinity and -Infinity, which Python writes, are null here
};

// Where to begin in a document that is an array and not packed: at an element that an earlier scan found.
struct JsonStart {
  uint64_t offset = 0;  // 0: at the beginning
  uint64_t index = 0;
};

// Returns false to stop.
using JsonSink = absl::FunctionRef<absl::StatusOr<bool>(const JsonElement& element)>;

// True when the file begins as gzip does.
absl::StatusOr<bool> IsGzip(const std::string& path);

// Values of the object that are no arrays are passed over. InvalidArgument naming `path`: neither array nor object, cut
// off, an element beyond kMaxJsonElementBytes, gzip that does not inflate; also what the sink returns.
absl::Status ScanJson(const std::string& path, const JsonStart& start, JsonSink sink);

}  // namespace stoker::ingest
