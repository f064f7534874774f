// SPDX-License-Identifier: Apache-2.0
// Early return of errors.
//
//   STOKER_RETURN_IF_ERROR(file.Write(bytes));
//   STOKER_ASSIGN_OR_RETURN(Segment segment, Segment::Map(name));
//   return Annotate(status, "mapping segment 3");   // context is added as an error goes up
#pragma once

#include <utility>
#include "absl/strings/string_view.h"

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace stoker {

// The same code, with "<context>: " before the message. OK stays OK.
inline absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(context, ": ", status.message()));
}

}  // namespace stoker

#define STOKER_RETURN_IF_ERROR(expr)                                                       \
  do {                                                                                     \
    if (absl::Status stoker_status_ = (expr); !stoker_status_.ok()) return stoker_status_; \
  } while (false)

#define STOKER_CONCAT_INNER_(a, b) a##b
#define STOKER_CONCAT_(a, b) STOKER_CONCAT_INNER_(a, b)
#define STOKER_ASSIGN_OR_RETURN(lhs, expr) STOKER_ASSIGN_OR_RETURN_(STOKER_CONCAT_(stoker_or_, __LINE__), lhs, expr)
#define STOKER_ASSIGN_OR_RETURN_(tmp, lhs, expr) \
  auto tmp = (expr);                             \
  if (!tmp.ok()) return tmp.status();            \
  lhs = std::move(tmp).value()
