/* Run-length streams (format sections 4.2, 4.4 and 4.8): decoders, and encoders that cut runs as the reference does.
 *
 * An encoder is called twice. With `out` NULL it only measures, and stops once it is above the limit.
 */
#ifndef QATQFS_RUNS_H
#define QATQFS_RUNS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { RUN_ZERO, RUN_RAW, RUN_REPEAT };

/* ---- decoders ----------------------------------------------------------------------------------------- */

/* Write one run of `length` bytes, whose operand begins at data[*at]. Returns 0 if the operand is cut off. */
static inline int decode_run(int token, size_t length, const uint8_t *data, size_t size, size_t *at, uint8_t *out)
{
    if (token == RUN_ZERO) {
        memset(out, 0, length);
    } else if (token == RUN_RAW) {
        if (length > size - *at)
            return 0;
        memcpy(out, data + *at, length);
        *at += length;
    } else {
        if (*at == size)
            return 0;
        memset(out, data[(*at)++], length);
    }
    return 1;
}

/* Decode runs `token u8 | len u16 | operand` of `unit`-byte units. Returns whether they make exactly `want` bytes. */
static int decode_runs(const uint8_t *data, size_t size, uint8_t *out, size_t want, size_t unit, int max_token)
{
    size_t at = 0, made = 0;
    while (made < want) {
        if (size - at < 3)
            return 0;
        int token = data[at];
        size_t run = ((size_t)data[at + 1] << 8 | data[at + 2]) * unit;
        at += 3;
        if (run == 0 || run > want - made || token > max_token || !decode_run(token, run, data, size, &at, out + made))
            return 0;
        made += run;
    }
    return at == size;
}

/* Decode runs whose first byte is a 2-bit tag and a length of 1..64. Returns whether they make `want` bytes. */
static int decode_packed_runs(const uint8_t *data, size_t size, uint8_t *out, size_t want)
{
    size_t at = 0, made = 0;
    while (made < want) {
        if (at == size)
            return 0;
        int tag = data[at] >> 6;
        size_t run = (size_t)(data[at++] & 0x3f) + 1;
        if (run > want - made || tag > RUN_REPEAT || !decode_run(tag, run, data, size, &at, out + made))
            return 0;
        made += run;
    }
    return at == size;
}

/* ---- encoders ----------------------------------------------------------------------------------------- */

struct run_form {
    size_t longest;      /* most units in one run */
    size_t least_repeat; /* fewest equal bytes that make a repeat run; 0: there are none */
    size_t unit;         /* bytes of a unit; 1 if there are repeat runs */
    int packed;          /* tag and length are one byte, not three */
};

static const struct run_form BYTE_RUN_FORM = {65535, 4, 1, 0};
static const struct run_form PACKED_RUN_FORM = {64, 3, 1, 1};
static const struct run_form WORD_RUN_FORM = {65535, 0, 4, 0};

static inline int unit_is_zero(const uint8_t *at, size_t unit)
{
    if (unit == 1)
        return *at == 0;
    uint32_t word;
    memcpy(&word, at, 4);
    return word == 0;
}

/* Return how many of the `left` bytes equal the first one, at most `longest`. */
static inline size_t equal_bytes(const uint8_t *at, size_t left, size_t longest)
{
    size_t most = left < longest ? left : longest, run = 1;
    while (run < most && at[run] == at[0])
        run++;
    return run;
}

/* Write the stream unless `out` is NULL. Returns its size, or any number above `limit` if it is larger than that. */
static size_t encode_runs(const uint8_t *data, size_t size, const struct run_form *form, uint8_t *out, size_t limit)
{
    const size_t unit = form->unit, units = size / unit, head = form->packed ? 1 : 3;
    size_t i = 0, made = 0;
    while (i < units && made <= limit) {
        const uint8_t *start = data + i * unit;
        size_t most = units - i < form->longest ? units - i : form->longest;
        size_t run = 1, operand;
        int token;
        if (unit_is_zero(start, unit)) {
            while (run < most && unit_is_zero(start + run * unit, unit))
                run++;
            token = RUN_ZERO;
            operand = 0;
        } else if (form->least_repeat && equal_bytes(start, units - i, form->least_repeat) == form->least_repeat) {
            run = equal_bytes(start, units - i, form->longest);
            token = RUN_REPEAT;
            operand = 1;
        } else {
            while (run < most && !unit_is_zero(start + run * unit, unit) &&
                   !(form->least_repeat &&
                     equal_bytes(start + run, units - i - run, form->least_repeat) == form->least_repeat))
                run++;
            token = RUN_RAW;
            operand = run * unit;
        }
        if (out != NULL) {
            if (head + operand > limit - made)
                return limit + 1; /* another thread has changed the data since it was measured */
            if (form->packed) {
                out[made] = (uint8_t)(token << 6 | (int)(run - 1));
            } else {
                out[made] = (uint8_t)token;
                out[made + 1] = (uint8_t)(run >> 8);
                out[made + 2] = (uint8_t)run;
            }
            memcpy(out + made + head, start, operand);
        }
        made += head + operand;
        i += run;
    }
    return made;
}

#endif
