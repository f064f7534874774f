// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/strings/string_view.h"

namespace stoker::ingest {

// Seconds since 1970-01-01 00:00:00 of "2018-01-02", "2018-01-02 03:04", "2018-01-02T03:04:05.678Z", "2018/01/02
// 03:04:05 +01:30" (a zone is taken off; without one all times are of one zone), or of a plain number, which is seconds
// already. False, and `seconds` untouched, for anything else, days and hours that do not exist among it.
bool ParseTimestamp(absl::string_view text, double* seconds);

}  // namespace stoker::ingest
