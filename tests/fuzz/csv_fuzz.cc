// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  stoker::v1::IngestOptions options;
  options.set_format(stoker::v1::CSV);
  options.set_missing(stoker::v1::IngestOptions::MISSING_ZERO);
  if (size % 2 == 0) options.mutable_csv()->set_label("label");
  options.mutable_csv()->set_gap_seconds(static_cast<double>(size % 3));
  stoker::fuzz::ReadSeries(stoker::fuzz::View(data, size), options);
  return 0;
}
