docker run -d --name etcd-3 -v etcd3:/var/lib/etcd gcr.io/etcd-development/etcd:v3.6.5 etcd --name m3 \
  --data-dir /var/lib/etcd/data --initial-advertise-peer-urls http://10.0.0.1:2382
