// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/timestamp.h"

#include <cmath>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/time/civil_time.h"
#include "server/ingest/text.h"

namespace stoker::ingest {
namespace {

// Exactly `digits` digits at the front of *text, which are cut off.
bool TakeNumber(int digits, absl::string_view* text, int* number) {
  if (text->size() < static_cast<size_t>(digits)) return false;
  *number = 0;
  for (int i = 0; i < digits; ++i) {
    if (!absl::ascii_isdigit(static_cast<unsigned char>((*text)[static_cast<size_t>(i)]))) return false;
    *number = *number * 10 + ((*text)[static_cast<size_t>(i)] - '0');
  }
  text->remove_prefix(static_cast<size_t>(digits));
  return true;
}

bool TakeChar(char c, absl::string_view* text) {
  if (text->empty() || text->front() != c) return false;
  text->remove_prefix(1);
  return true;
}

bool TakeDate(absl::string_view* text, absl::CivilDay* day) {
  int year, month, day_of_month;
  if (!TakeNumber(4, text, &year) || text->empty()) return false;
  const char separator = text->front();
  if (separator != '-' && separator != '/') return false;
  if (!TakeChar(separator, text) || !TakeNumber(2, text, &month) || !TakeChar(separator, text) ||
      !TakeNumber(2, text, &day_of_month)) {
    return false;
  }
  *day = absl::CivilDay(year, month, day_of_month);
  return day->month() == month && day->day() == day_of_month;  // otherwise it was normalised: no such day
}

// "HH:MM[:SS[.fraction]]".
bool TakeTime(absl::string_view* text, double* seconds) {
  int hour, minute, second = 0;
  if (!TakeNumber(2, text, &hour) || !TakeChar(':', text) || !TakeNumber(2, text, &minute)) return false;
  if (TakeChar(':', text) && !TakeNumber(2, text, &second)) return false;
  double fraction = 0;
  if (TakeChar('.', text)) {
    double unit = 0.1;
    int digit;
    if (!TakeNumber(1, text, &digit)) return false;
    do {
      fraction += unit * digit;
      unit /= 10;
    } while (TakeNumber(1, text, &digit));
  }
  *seconds = hour * 3600 + minute * 60 + second + fraction;
  return hour < 24 && minute < 60 && second <= 60;
}

// "", "Z", "+01", "+0130", "+01:30", with a space before or not: its seconds east.
bool TakeZone(absl::string_view* text, double* seconds) {
  *seconds = 0;
  TakeChar(' ', text);
  if (text->empty() || TakeChar('Z', text) || TakeChar('z', text)) return true;
  const bool west = text->front() == '-';
  if (!TakeChar(west ? '-' : '+', text)) return false;
  int hours, minutes = 0;
  if (!TakeNumber(2, text, &hours)) return false;
  TakeChar(':', text);
  if (!text->empty() && !TakeNumber(2, text, &minutes)) return false;
  *seconds = (west ? -1 : 1) * (hours * 3600 + minutes * 60);
  return hours < 24 && minutes < 60;
}

}  // namespace

bool ParseTimestamp(absl::string_view text, double* seconds) {
  text = Trim(text);
  double number;
  if (ParseValue(text, &number)) {
    if (!std::isfinite(number)) return false;
    *seconds = number;
    return true;
  }
  absl::CivilDay day;
  double time = 0;
  double zone = 0;
  if (!TakeDate(&text, &day)) return false;
  if (!text.empty()) {
    if (!TakeChar('T', &text) && !TakeChar('t', &text) && !TakeChar(' ', &text)) return false;
    if (!TakeTime(&text, &time) || !TakeZone(&text, &zone) || !text.empty()) return false;
  }
  *seconds = static_cast<double>(day - absl::CivilDay(1970, 1, 1)) * 86400.0 + time - zone;
  return true;
}

}  // namespace stoker::ingest
