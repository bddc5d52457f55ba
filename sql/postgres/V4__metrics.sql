-- Committed totals; what Prometheus sees is read from here, never from a process's memory.
CREATE TABLE metric_counters (
    name text NOT NULL,
    label text NOT NULL,            -- the label's value, empty for a counter without label
    value bigint NOT NULL,
    PRIMARY KEY (name, label)
);

CREATE TABLE metric_histogram_buckets (
    name text NOT NULL,
    bucket integer NOT NULL,        -- index of the upper bound; the last one is infinity
    observations bigint NOT NULL,   -- in this bucket alone
    sum_micros numeric NOT NULL,
    PRIMARY KEY (name, bucket)
);
